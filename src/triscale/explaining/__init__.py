"""Why a network says what it says: class activation maps over pictures, and whether they can be trusted."""

from triscale.explaining.drawing import overlay
from triscale.explaining.explain import Explained, Explanation, check_sanity, choose, explain, explain_files, named
from triscale.explaining.gallery import Gallery
from triscale.explaining.maps import Maps, class_activation_maps, grad_cam
from triscale.explaining.sanity import Sanity, rank_correlation, sanity_check

__all__ = [
    "Explained",
    "Explanation",
    "Gallery",
    "Maps",
    "Sanity",
    "check_sanity",
    "choose",
    "class_activation_maps",
    "explain",
    "explain_files",
    "grad_cam",
    "named",
    "overlay",
    "rank_correlation",
    "sanity_check",
]
