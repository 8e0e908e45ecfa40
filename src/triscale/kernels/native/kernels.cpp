// All kernels of one instruction set: compiled once for each, with TRISCALE_ISA as its name.

#include "interface.h"

#include "vectors.h"

namespace triscale {
namespace TRISCALE_ISA {
namespace {

// `parallel` for anything that can be called with the number of a task.
template <class Task>
inline void for_each(long tasks, int threads, Task task) {
  parallel(tasks, threads, [](void* context, int64_t i) { (*static_cast<Task*>(context))(i); }, &task);
}

// Memory for a kernel's own sums, aligned for vectors.
class Scratch {
 public:
  explicit Scratch(size_t bytes) : begin_(malloc(bytes + 64)) {}
  ~Scratch() { free(begin_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  bool ok() const { return begin_ != nullptr; }
  template <class T>
  T* at(size_t offset) const {
    uintptr_t start = (reinterpret_cast<uintptr_t>(begin_) + 63) & ~static_cast<uintptr_t>(63);
    return reinterpret_cast<T*>(start + offset);
  }

 private:
  void* begin_;
};

}  // namespace
}  // namespace TRISCALE_ISA
}  // namespace triscale

#include "activations.h"
#include "norm.h"
#include "depthwise.h"
#include "depthwise_rows.h"
#include "depthwise_passes.h"
#include "excite.h"
#include "norm_excite.h"
#include "products.h"
#include "outer_products.h"
#include "pointwise.h"

namespace triscale {
namespace TRISCALE_ISA {

// A constant has internal linkage unless it was declared before.
extern const TrainingKernels kernels;
const TrainingKernels kernels = {depthwise, depthwise_backward, norm, norm_backward, pool, scale, dot, pointwise,
                         pointwise_backward, norm_depthwise, norm_depthwise_backward, norm_excite, norm_excite_backward};

}  // namespace TRISCALE_ISA
}  // namespace triscale
