// A transformer encoder's forward pass on one CPU thread.
//
// Compiled by GCC for AMX, AVX-512 and AVX2; `kernels_for_this_cpu` says which of them this processor can run. Nothing
// is allocated here and nothing is kept between calls, so that threads can call at the same time.

#if !defined(__x86_64__) || !defined(__GNUC__) || defined(__clang__)
#error "These kernels need GCC and an x86-64 processor; without them the package installs and uses PyTorch alone."
#endif

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmath>
#include <cstdint>
#include <cstring>

// The weights of one layer, and of an encoder; matrices as the variant lays them out, biases padded alike.
struct Layer {
    const float *qkv, *qkv_bias, *out, *out_bias, *gain1, *shift1, *up, *up_bias, *down, *down_bias, *gain2, *shift2;
};

struct Model {
    const Layer *layers;
    const float *gain, *shift;  // of the embeddings' norm
    int64_t count, width, inner, heads;
    float epsilon;
};

// The weights of a masked-LM head: a layer with its norm, and the decoder [outputs][width].
struct Vocabulary {
    const float *dense, *dense_bias, *gain, *shift, *decoder;
    int64_t width, outputs;
    float epsilon;
};

#define INLINE static inline __attribute__((always_inline))

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma,bmi2,prefer-vector-width=512")
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

#if __GNUC__ >= 11  // older compilers know no AMX, and make all the rest
#define HAS_AMX
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma,bmi2,prefer-vector-width=512,amx-tile,amx-bf16,avx512bf16")
#include "encoder_amx.inc"
#pragma GCC pop_options
#endif

// What Python sees of one variant: how matrices are laid out, and what can be done with them.
struct Kernels {
    int64_t size;   // of this table, so that Python notices if it was compiled for another version
    int64_t parts;  // numbers of bfloat16 for each weight, in tiles; 0 for float32, in strips
    int64_t panel, strip;
    int64_t (*workspace)(const Model *, int64_t, int64_t);
    void (*forward)(const Model *, float *, const int64_t *, int64_t, int64_t, float *);
    int64_t (*largest_workspace)(const Vocabulary *, int64_t);
    void (*largest)(const Vocabulary *, const float *, const int64_t *, float *, int64_t, int64_t, float *);
};

static const Kernels KERNELS[] = {
#ifdef HAS_AMX
    {sizeof(Kernels), 1, amx::BLOCK, amx::BLOCK, amx::workspace<1>, amx::forward<1>, amx::largest_workspace<1>,
     amx::largest<1>},
    {sizeof(Kernels), 2, amx::BLOCK, amx::BLOCK, amx::workspace<2>, amx::forward<2>, amx::largest_workspace<2>,
     amx::largest<2>},
#else
    {}, {},
#endif
    {sizeof(Kernels), 0, avx512::PANEL, 12, avx512::workspace, avx512::forward, avx512::largest_workspace,
     avx512::largest},
    {sizeof(Kernels), 0, avx2::PANEL, 6, avx2::workspace, avx2::forward, avx2::largest_workspace, avx2::largest},
};

// Whether there is AMX with bfloat16, and the system lets this process use its registers.
static bool amx_is_there() {
#if defined(EMULATED_TILES)  // by tests on processors without AMX
    return true;
#elif !defined(HAS_AMX)
    return false;
#else
    unsigned a, b, c, d;
    const unsigned bfloat16 = 1u << 22, tiles = 1u << 24;
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & bfloat16) || !(d & tiles)) return false;
    if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & (1u << 5))) return false;  // conversions to bfloat16
    const long request_permission = 0x1023, tile_data = 18;  // of arch_prctl, see Linux's Documentation/arch/x86/xstate
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#endif
}

// The kernels for a processor with AMX (one part: 0, two: 1), AVX-512 (2) or AVX2 (3); null where this one lacks it.
extern "C" __attribute__((visibility("default"))) const Kernels *kernels_for_this_cpu(int64_t variant) {
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("bmi2");
    const bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    if (variant == 0 || variant == 1) return wide && amx_is_there() ? &KERNELS[variant] : nullptr;
    if (variant == 2) return wide ? &KERNELS[2] : nullptr;
    return variant == 3 && narrow ? &KERNELS[3] : nullptr;
}

// An importable module without contents, so that a Python build tool compiles this file and finds it again.
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_kernels", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&MODULE); }
