// A transformer encoder's forward pass on one CPU thread, in float32.
//
// Compiled by GCC for AVX-512 and for AVX2; `kernels_for_this_cpu` says which of them this processor can run. Nothing
// is allocated here and nothing is kept between calls, so that threads can call at the same time.

#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__)
#error "These kernels need GCC and an x86-64 processor; without them the package installs and uses PyTorch alone."
#endif

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// The weights of one layer, and of an encoder; matrices in strips, biases padded to whole strips.
struct Layer {
    const float *qkv, *qkv_bias, *out, *out_bias, *gain1, *shift1, *up, *up_bias, *down, *down_bias, *gain2, *shift2;
};

struct Model {
    const Layer *layers;
    const float *gain, *shift;  // of the embeddings' norm
    int64_t count, width, inner, heads;
    float epsilon;
};

#define INLINE static inline __attribute__((always_inline))

#pragma GCC push_options
#pragma GCC target("arch=skylake-avx512,prefer-vector-width=512")
#define VARIANT avx512
#define LANES 16
#define STRIP 12
#define MIXED 8
#include "encoder.inc"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("arch=haswell")
#define VARIANT avx2
#define LANES 8
#define STRIP 6
#define MIXED 4
#include "encoder.inc"
#pragma GCC pop_options

// What Python sees of one variant.
struct Kernels {
    int64_t panel, strip;
    int64_t (*workspace)(const Model *, int64_t, int64_t);
    void (*forward)(const Model *, float *, const int64_t *, int64_t, int64_t, float *);
    void (*largest)(const float *, const float *, const int64_t *, float *, int64_t, int64_t, int64_t);
};

static const Kernels KERNELS[] = {
    {avx512::PANEL, 12, avx512::workspace, avx512::forward, avx512::largest},
    {avx2::PANEL, 6, avx2::workspace, avx2::forward, avx2::largest},
};

// The kernels for a processor with AVX-512 (0) or AVX2 (1); null where this processor lacks it.
extern "C" __attribute__((visibility("default"))) const Kernels *kernels_for_this_cpu(int64_t variant) {
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
    const bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (variant == 0) return wide ? &KERNELS[0] : nullptr;
    return variant == 1 && narrow ? &KERNELS[1] : nullptr;
}

// An importable module without contents, so that a Python build tool compiles this file and finds it again.
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_kernels", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&MODULE); }
