// The kernels with emulated tiles, and their products in int8 one by one, so that tests can compare whole numbers.

#include "emulated_tiles.h"

#include "../../models/local/kernels/kernels.cpp"

#include <vector>

#define PRODUCT(NAMESPACE)                                                                                 \
    static void NAMESPACE##_product(const float *rows, const float *strips, const float *bias, float *out, \
                                    int64_t tokens, int64_t depth, int64_t outputs, int64_t activate) {    \
        using namespace NAMESPACE;                                                                         \
        const int64_t panels = (tokens + PANEL - 1) / PANEL;                                               \
        std::vector<float> inputs(panels * PANEL * depth), results(panels * PANEL * outputs);              \
        std::vector<float> space(NAMESPACE::Linear::size(depth));                                          \
        const NAMESPACE::Linear linear = {space.data()};                                                   \
        to_panels(rows, inputs.data(), tokens, depth);                                                     \
        linear(inputs.data(), strips, bias, results.data(), panels, depth, outputs, activate);             \
        to_rows(results.data(), out, tokens, outputs);                                                     \
    }

PRODUCT(int8_amx)
PRODUCT(int8_avx_vnni)
PRODUCT(int8_avx512_vnni)
PRODUCT(int8_avx512)
PRODUCT(int8_avx2)

// rows [tokens][depth] x weights + bias by one variant's kernels; weights as its table in `kernels_for_this_cpu` says.
extern "C" __attribute__((visibility("default"))) void int8_product(
    int64_t variant, const float *rows, const float *strips, const float *bias, float *out, int64_t tokens,
    int64_t depth, int64_t outputs, int64_t activate) {
    const auto product = variant == INT8_AMX           ? int8_amx_product
                         : variant == INT8_AVX_VNNI    ? int8_avx_vnni_product
                         : variant == INT8_AVX512_VNNI ? int8_avx512_vnni_product
                         : variant == INT8_AVX512      ? int8_avx512_product
                                                       : int8_avx2_product;
    product(rows, strips, bias, out, tokens, depth, outputs, activate);
}
