// Frames (pixels, 3) and their labels (pixels) -> the frames, each pixel blended with its class's colour. A thread makes four pixels,
// which are three words where the memory is aligned to words. `palette` holds 256 RGB triples, of which the first `colours` are classes'; a
// pixel with another label stays as it is. `out` may be `frames`.
#include "overlay.cuh"

namespace rtf {

constexpr int kPixels = 4;

__device__ inline void blend_pixels(const unsigned char* frame, const unsigned char* labels, const unsigned char* palette, int colours,
                                    float keep, float alpha, int count, unsigned char* out) {
    for (int i = 0; i < count; ++i) {
        const unsigned char* colour = palette + 3 * labels[i];
        const bool shown = labels[i] < colours;
        for (int c = 0; c < 3; ++c) {
            const unsigned char value = frame[3 * i + c];
            out[3 * i + c] = shown ? blend(value, colour[c], keep, alpha) : value;
        }
    }
}

__device__ inline bool on_words(const void* address) { return (reinterpret_cast<unsigned long long>(address) & 3) == 0; }

}  // namespace rtf

extern "C" __global__ void overlay(const unsigned char* frames, const unsigned char* labels, const unsigned char* __restrict__ palette,
                                   int colours, float keep, float alpha, long long pixels, unsigned char* out) {
    using namespace rtf;
    const long long first = kPixels * (static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x);
    if (first >= pixels) return;
    const unsigned char* frame = frames + 3 * first;
    unsigned char* target = out + 3 * first;
    if (first + kPixels > pixels || !on_words(frame) || !on_words(labels) || !on_words(target)) {
        const int count = pixels - first < kPixels ? static_cast<int>(pixels - first) : kPixels;
        blend_pixels(frame, labels + first, palette, colours, keep, alpha, count, target);
        return;
    }
    union Words {
        unsigned int words[3];
        unsigned char bytes[12];
    } source, blended;
    union {
        unsigned int word;
        unsigned char bytes[4];
    } ids;
    for (int i = 0; i < 3; ++i) source.words[i] = reinterpret_cast<const unsigned int*>(frame)[i];
    ids.word = *reinterpret_cast<const unsigned int*>(labels + first);
    blend_pixels(source.bytes, ids.bytes, palette, colours, keep, alpha, kPixels, blended.bytes);
    for (int i = 0; i < 3; ++i) reinterpret_cast<unsigned int*>(target)[i] = blended.words[i];
}
