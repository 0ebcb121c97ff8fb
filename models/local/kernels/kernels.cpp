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

INLINE int64_t whole(int64_t count, int64_t unit) { return (count + unit - 1) / unit * unit; }

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma,bmi2,prefer-vector-width=512")
#define VARIANT avx512
#define LANES 16
#define STRIP 12
#define MIXED 8
#include "encoder.inc"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,tune=haswell")
#define VARIANT avx2
#define LANES 8
#define STRIP 6
#define MIXED 4
#include "encoder.inc"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma,bmi2,prefer-vector-width=512,avx512vnni")
#define VARIANT int8_avx512_vnni
#define FLOATS avx512
#define STRIP 12
#define RUN 4
#define DOT(sums, values, weights) (Ints)_mm512_dpbusd_epi32((__m512i)(sums), (__m512i)(values), (__m512i)(weights))
#include "int8.inc"
#pragma GCC pop_options

// Without an instruction for fours of bytes, their even ones and their odd ones are multiplied in pairs, as 16 bits.
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma,bmi2,prefer-vector-width=512")
INLINE __m512i dot_of_pairs(__m512i sums, __m512i values, __m512i weights) {
    const __m512i even = _mm512_srai_epi16(_mm512_slli_epi16(weights, 8), 8), odd = _mm512_srai_epi16(weights, 8);
    const __m512i first = _mm512_madd_epi16(_mm512_and_si512(values, _mm512_set1_epi16(0xFF)), even);
    return _mm512_add_epi32(sums, _mm512_add_epi32(first, _mm512_madd_epi16(_mm512_srli_epi16(values, 8), odd)));
}
#define VARIANT int8_avx512
#define FLOATS avx512
#define STRIP 8
#define RUN 4
#define DOT(sums, values, weights) (Ints)dot_of_pairs((__m512i)(sums), (__m512i)(values), (__m512i)(weights))
#include "int8.inc"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,tune=haswell")
INLINE __m256i dot_of_pairs(__m256i sums, __m256i values, __m256i weights) {
    const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(weights, 8), 8), odd = _mm256_srai_epi16(weights, 8);
    const __m256i first = _mm256_madd_epi16(_mm256_and_si256(values, _mm256_set1_epi16(0xFF)), even);
    return _mm256_add_epi32(sums, _mm256_add_epi32(first, _mm256_madd_epi16(_mm256_srli_epi16(values, 8), odd)));
}
#define VARIANT int8_avx2
#define FLOATS avx2
#define STRIP 4
#define RUN 4
#define DOT(sums, values, weights) (Ints)dot_of_pairs((__m256i)(sums), (__m256i)(values), (__m256i)(weights))
#include "int8.inc"
#pragma GCC pop_options

#if __GNUC__ >= 11  // older compilers know neither AMX nor VNNI of 256 bits, and make all the rest
#define HAS_AMX
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma,bmi2,prefer-vector-width=512,amx-tile,amx-bf16,avx512bf16")
#include "encoder_amx.inc"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx512cd,fma,bmi2,prefer-vector-width=512,amx-tile,amx-bf16,amx-int8,avx512bf16")
#define VARIANT int8_amx
#define FLOATS avx512
#define STRIP 32
#define RUN 64
#define TILED
#include "int8.inc"
#pragma GCC pop_options

#pragma GCC push_options
#pragma GCC target("avx2,fma,bmi,bmi2,tune=haswell,avxvnni")
#define VARIANT int8_avx_vnni
#define FLOATS avx2
#define STRIP 6
#define RUN 4
#define DOT(sums, values, weights) (Ints)_mm256_dpbusd_avx_epi32((__m256i)(sums), (__m256i)(values), (__m256i)(weights))
#include "int8.inc"
#pragma GCC pop_options
#endif

// What Python sees of one variant: how matrices are laid out, and what can be done with them.
struct Kernels {
    int64_t size;   // of this table, so that Python notices if it was compiled for another version
    int64_t parts;  // numbers of bfloat16 for each weight, in tiles; 0 for strips
    int64_t run;    // weights of one output that lie side by side in a strip of int8; 0 for one of float32
    int64_t panel, strip;
    int64_t (*workspace)(const Model *, int64_t, int64_t);
    void (*forward)(const Model *, float *, const int64_t *, int64_t, int64_t, float *);
    int64_t (*largest_workspace)(const Vocabulary *, int64_t);
    void (*largest)(const Vocabulary *, const float *, const int64_t *, float *, int64_t, int64_t, float *);
};

static const Kernels KERNELS[] = {
#ifdef HAS_AMX
    {sizeof(Kernels), 1, 0, amx::BLOCK, amx::BLOCK, amx::workspace<1>, amx::forward<1>, amx::largest_workspace<1>,
     amx::largest<1>},
    {sizeof(Kernels), 2, 0, amx::BLOCK, amx::BLOCK, amx::workspace<2>, amx::forward<2>, amx::largest_workspace<2>,
     amx::largest<2>},
#else
    {}, {},
#endif
    {sizeof(Kernels), 0, 0, avx512::PANEL, 12, avx512::workspace, avx512::forward, avx512::largest_workspace,
     avx512::largest},
    {sizeof(Kernels), 0, 0, avx2::PANEL, 6, avx2::workspace, avx2::forward, avx2::largest_workspace, avx2::largest},
    // Tiles of int8 have no vocabulary head of their own.
#ifdef HAS_AMX
    {sizeof(Kernels), 0, 64, avx512::PANEL, 32, int8_amx::workspace, int8_amx::forward, nullptr, nullptr},
    {sizeof(Kernels), 0, 4, avx2::PANEL, 6, int8_avx_vnni::workspace, int8_avx_vnni::forward, int8_avx_vnni::largest_workspace,
     int8_avx_vnni::largest},
#else
    {}, {},
#endif
    {sizeof(Kernels), 0, 4, avx512::PANEL, 12, int8_avx512_vnni::workspace, int8_avx512_vnni::forward, int8_avx512_vnni::largest_workspace,
     int8_avx512_vnni::largest},
    {sizeof(Kernels), 0, 4, avx512::PANEL, 8, int8_avx512::workspace, int8_avx512::forward, int8_avx512::largest_workspace,
     int8_avx512::largest},
    {sizeof(Kernels), 0, 4, avx2::PANEL, 4, int8_avx2::workspace, int8_avx2::forward, int8_avx2::largest_workspace,
     int8_avx2::largest},
};

enum Variant { HALF, TWO_HALVES, AVX512, AVX2, INT8_AMX, INT8_AVX_VNNI, INT8_AVX512_VNNI, INT8_AVX512, INT8_AVX2 };

#ifdef HAS_AMX
// Whether there is AMX with bfloat16 or int8, and the system lets this process use its registers.
static bool amx_is_there(bool int8) {
#if defined(EMULATED_TILES)  // by tests on processors without AMX
    return true;
#else
    unsigned a, b, c, d;
    const unsigned tiles = 1u << 24, numbers = 1u << (int8 ? 25 : 22);
    if (!__get_cpuid_count(7, 0, &a, &b, &c, &d) || !(d & numbers) || !(d & tiles)) return false;
    // Those of bfloat16 convert to it by instructions of AVX-512.
    if (!int8 && (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || !(a & (1u << 5)))) return false;
    const long request_permission = 0x1023, tile_data = 18;  // of arch_prctl, see Linux's Documentation/arch/x86/xstate
    return syscall(SYS_arch_prctl, request_permission, tile_data) == 0;
#endif
}
#endif

static bool can_run(int64_t variant) {
    __builtin_cpu_init();
    const bool wide = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
                      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                      __builtin_cpu_supports("avx512cd") && __builtin_cpu_supports("bmi2");
    const bool narrow = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("bmi2");
    switch (variant) {
#ifdef HAS_AMX
        case HALF:
        case TWO_HALVES: return wide && amx_is_there(false);
        case INT8_AMX: return wide && amx_is_there(true) && __builtin_cpu_supports("avx512vnni");
        case INT8_AVX_VNNI: return narrow && __builtin_cpu_supports("avxvnni");
#endif
        case AVX512:
        case INT8_AVX512: return wide;
        case INT8_AVX512_VNNI: return wide && __builtin_cpu_supports("avx512vnni");
        case AVX2:
        case INT8_AVX2: return narrow;
        default: return false;
    }
}

// The kernels of a variant; null where this processor lacks what they need.
extern "C" __attribute__((visibility("default"))) const Kernels *kernels_for_this_cpu(int64_t variant) {
    return can_run(variant) ? &KERNELS[variant] : nullptr;
}

// An importable module without contents, so that a Python build tool compiles this file and finds it again.
static PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_kernels", nullptr, -1, nullptr, nullptr, nullptr, nullptr, nullptr};

PyMODINIT_FUNC PyInit__kernels(void) { return PyModule_Create(&MODULE); }
