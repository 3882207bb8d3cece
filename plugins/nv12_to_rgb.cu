// A decoder's picture in NV12 -> RGB (H, W, 3), turned upright. `luma` has `height` rows of `width` bytes, each `luma_pitch` bytes after the
// one before; `chroma` has half as many rows, of U and V in turns, `chroma_pitch` bytes apart. A thread makes four pixels, which are three
// words: `out` is aligned to words.
#include "nv12_to_rgb.cuh"

namespace rtf {

constexpr int kPixels = 4;

struct Planes {
    const unsigned char* luma;
    const unsigned char* chroma;
    int luma_pitch, chroma_pitch, height, width, turns;
};

// `count` pixels of the turned picture, row after row from `place` on; its rows have `columns` pixels.
__device__ inline void convert(const Planes& planes, Place place, int columns, const YuvFactors& factors, int count, unsigned char* rgb) {
    for (int i = 0; i < count; ++i) {
        const Place from = stored_place(place, planes.height, planes.width, planes.turns);
        const unsigned char* pair = planes.chroma + static_cast<long long>(from.row / 2) * planes.chroma_pitch + from.column / 2 * 2;
        const unsigned char y = planes.luma[static_cast<long long>(from.row) * planes.luma_pitch + from.column];
        yuv_to_rgb(y, pair[0], pair[1], factors, rgb + 3 * i);
        place = place.column + 1 < columns ? Place{place.row, place.column + 1} : Place{place.row + 1, 0};
    }
}

}  // namespace rtf

extern "C" __global__ void nv12_to_rgb(const unsigned char* __restrict__ luma, int luma_pitch, const unsigned char* __restrict__ chroma,
                                       int chroma_pitch, int height, int width, int turns, int luma_offset, int luma_factor, int red_v,
                                       int green_u, int green_v, int blue_u, unsigned char* __restrict__ out) {
    using namespace rtf;
    const int pixels = height * width, columns = turns % 2 == 0 ? width : height;
    const long long first = kPixels * (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x);
    if (first >= pixels) return;
    const int start = static_cast<int>(first);
    const Place place = {start / columns, start % columns};
    const Planes planes = {luma, chroma, luma_pitch, chroma_pitch, height, width, turns};
    const YuvFactors factors = {luma_offset, luma_factor, red_v, green_u, green_v, blue_u};
    unsigned char* target = out + 3 * first;
    if (pixels - start < kPixels) {
        convert(planes, place, columns, factors, pixels - start, target);
        return;
    }
    union Words {
        unsigned int words[3];
        unsigned char bytes[3 * kPixels];
    } made;
    convert(planes, place, columns, factors, kPixels, made.bytes);
    for (int i = 0; i < 3; ++i) reinterpret_cast<unsigned int*>(target)[i] = made.words[i];
}
