// AMX in plain C++: the instructions that the kernels use, so that their code runs on processors without AMX. Given to
// the compiler with -include. Numbers are added in another order than AMX adds them, and nothing else differs.

#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define EMULATED_TILES

namespace emulated {

struct alignas(64) Tile {
    unsigned char rows[16][64];
};

static thread_local Tile tiles[8];

static inline void load(int tile, const void *base, int64_t stride) {
    for (int row = 0; row < 16; row++) memcpy(tiles[tile].rows[row], (const char *)base + row * stride, 64);
}

static inline void store(int tile, void *base, int64_t stride) {
    for (int row = 0; row < 16; row++) memcpy((char *)base + row * stride, tiles[tile].rows[row], 64);
}

static inline float upper_half(uint16_t half) {
    const uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

// Pairs of bfloat16: sums[i][j] += left[i][2k] * right[k][2j] + left[i][2k + 1] * right[k][2j + 1], over all k.
static inline void multiply(int sums, int left, int right) {
    float into[16][16];
    uint16_t a[16][32], b[16][32];
    memcpy(into, &tiles[sums], sizeof into);
    memcpy(a, &tiles[left], sizeof a);
    memcpy(b, &tiles[right], sizeof b);
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 16; j++)
                for (int half = 0; half < 2; half++)
                    into[i][j] += upper_half(a[i][2 * k + half]) * upper_half(b[k][2 * j + half]);
    memcpy(&tiles[sums], into, sizeof into);
}

// Fours of bytes, signed by unsigned: sums[i][j] += left[i][4k + n] * right[k][4j + n], over all k and n.
static inline void multiply_bytes(int sums, int left, int right) {
    int32_t into[16][16];
    int8_t a[16][64];
    uint8_t b[16][64];
    memcpy(into, &tiles[sums], sizeof into);
    memcpy(a, &tiles[left], sizeof a);
    memcpy(b, &tiles[right], sizeof b);
    for (int i = 0; i < 16; i++)
        for (int k = 0; k < 16; k++)
            for (int j = 0; j < 16; j++)
                for (int n = 0; n < 4; n++) into[i][j] += a[i][4 * k + n] * b[k][4 * j + n];
    memcpy(&tiles[sums], into, sizeof into);
}

}  // namespace emulated

#undef _tile_loadd
#undef _tile_stored
#undef _tile_zero
#undef _tile_dpbf16ps
#undef _tile_dpbsud
#define _tile_loadd(tile, base, stride) emulated::load(tile, base, stride)
#define _tile_stored(tile, base, stride) emulated::store(tile, base, stride)
#define _tile_zero(tile) memset(&emulated::tiles[tile], 0, sizeof(emulated::Tile))
#define _tile_dpbf16ps(sums, left, right) emulated::multiply(sums, left, right)
#define _tile_dpbsud(sums, left, right) emulated::multiply_bytes(sums, left, right)
