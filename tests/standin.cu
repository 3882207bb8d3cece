// A segmentation network in whole numbers, so that a CPU gives the very same logits: no sum is rounded, whatever its order. Its weights
// come from a hash of where they stand. Images (N, 3, H, W) -> features (N, 8, H/8, W/8) -> layers of 3x3 convolutions, each with the
// features added again -> logits (N, classes, H/8, W/8), or labels (N, H, W). A thread makes one value. standin_network.py has the same
// in NumPy.
#include "half.cuh"

namespace standin {

constexpr int kChannels = 8, kStride = 8;
constexpr int kMost = 1 << 18;  // eight of them times a weight of 3 is still exact as a float
constexpr int kHead = -1;

struct Place {
    int column, row, channel;
    long long image;
};

// A number from 0 to 2^32 - 1 for a weight's place.
__device__ inline unsigned int hashed(int layer, int to, int from, int tap) {
    unsigned int value = static_cast<unsigned int>(layer) * 0x9E3779B1u ^ static_cast<unsigned int>(to) * 0x85EBCA77u ^
                         static_cast<unsigned int>(from) * 0xC2B2AE3Du ^ static_cast<unsigned int>(tap) * 0x27D4EB2Fu;
    value = (value ^ value >> 15) * 0x2C1B3C6Du;
    value = (value ^ value >> 12) * 0x297A2D39u;
    return value ^ value >> 15;
}

// From -most to most.
__device__ inline int weight(int layer, int to, int from, int tap, int most) {
    return static_cast<int>(hashed(layer, to, from, tap) % static_cast<unsigned int>(2 * most + 1)) - most;
}

__device__ inline int clamped(int value, int most) { return value < -most ? -most : value > most ? most : value; }

// 32 steps for 1, to the nearest even number, at most 127.
__device__ inline int quantised(float value) {
    float scaled = value * 32.0f;
    scaled = scaled < -127.0f ? -127.0f : scaled > 127.0f ? 127.0f : scaled;
    return static_cast<int>((scaled + 12582912.0f) - 12582912.0f);
}

__device__ inline long long thread_index() { return static_cast<long long>(blockIdx.x) * blockDim.x + threadIdx.x; }

__device__ inline Place place_of(long long index, int channels, int rows, int columns) {
    Place place;
    place.column = static_cast<int>(index % columns);
    index /= columns;
    place.row = static_cast<int>(index % rows);
    index /= rows;
    place.channel = static_cast<int>(index % channels);
    place.image = index / channels;
    return place;
}

template <typename T>
__device__ void features(const T* images, int rows, int columns, long long count, int* out) {
    const long long index = thread_index();
    if (index >= count) return;
    const Place at = place_of(index, kChannels, rows, columns);
    const int width = columns * kStride;
    int sum = 0;
    for (int c = 0; c < 3; ++c) {
        const T* plane = images + (at.image * 3 + c) * rows * kStride * width;
        const T* block = plane + static_cast<long long>(at.row) * kStride * width + at.column * kStride;
        int part = 0;
        for (int y = 0; y < kStride; ++y) {
            for (int x = 0; x < kStride; ++x) part += (1 + ((3 * y + x) & 3)) * quantised(rtf::to_float(block[y * width + x]));
        }
        sum += weight(0, at.channel, c, 0, 3) * part;
    }
    out[index] = sum >> 1;
}

__device__ inline int head_sum(const int* features, long long image, int number, int row, int column, int rows, int columns) {
    const long long plane = static_cast<long long>(rows) * columns;
    const int* cell = features + image * kChannels * plane + static_cast<long long>(row) * columns + column;
    int sum = 0;
    for (int from = 0; from < kChannels; ++from) sum += weight(kHead, number, from, 0, 3) * cell[from * plane];
    return sum;
}

template <typename T>
__device__ void logits(const int* source, int classes, int rows, int columns, long long count, T* out) {
    const long long index = thread_index();
    if (index >= count) return;
    const Place at = place_of(index, classes, rows, columns);
    const int sum = head_sum(source, at.image, at.channel, at.row, at.column, rows, columns);
    rtf::store(out + index, static_cast<float>(sum) * 0.000244140625f);
}

}  // namespace standin

extern "C" __global__ void standin_features_f32(const float* __restrict__ images, int rows, int columns, long long count,
                                                int* __restrict__ out) {
    standin::features(images, rows, columns, count, out);
}

extern "C" __global__ void standin_features_f16(const rtf::half* __restrict__ images, int rows, int columns, long long count,
                                                int* __restrict__ out) {
    standin::features(images, rows, columns, count, out);
}

// `first` are the features, `source` what the layer before gave; outside the map everything is 0.
extern "C" __global__ void standin_layer(const int* __restrict__ first, const int* __restrict__ source, int layer, int rows, int columns,
                                         long long count, int* __restrict__ out) {
    using namespace standin;
    const long long index = thread_index();
    if (index >= count) return;
    const Place at = place_of(index, kChannels, rows, columns);
    const long long plane = static_cast<long long>(rows) * columns;
    int sum = 0;
    for (int from = 0; from < kChannels; ++from) {
        const int* map = source + (at.image * kChannels + from) * plane;
        for (int tap = 0; tap < 9; ++tap) {
            const int row = at.row + tap / 3 - 1, column = at.column + tap % 3 - 1;
            if (row < 0 || row >= rows || column < 0 || column >= columns) continue;
            sum += weight(layer, at.channel, from, tap, 1) * map[static_cast<long long>(row) * columns + column];
        }
    }
    out[index] = clamped((first[index] >> 1) + ((source[index] + (sum >> 3)) >> 2), kMost);
}

extern "C" __global__ void standin_logits_f32(const int* __restrict__ source, int classes, int rows, int columns, long long count,
                                              float* __restrict__ out) {
    standin::logits(source, classes, rows, columns, count, out);
}

extern "C" __global__ void standin_logits_f16(const int* __restrict__ source, int classes, int rows, int columns, long long count,
                                              rtf::half* __restrict__ out) {
    standin::logits(source, classes, rows, columns, count, out);
}

// `count` pixels; the lowest class on ties.
extern "C" __global__ void standin_labels(const int* __restrict__ source, int classes, int rows, int columns, long long count,
                                          unsigned char* __restrict__ out) {
    using namespace standin;
    const long long index = thread_index();
    if (index >= count) return;
    const Place at = place_of(index, 1, rows * kStride, columns * kStride);
    int best = 0, most = 0;
    for (int number = 0; number < classes; ++number) {
        const int sum = head_sum(source, at.image, number, at.row / kStride, at.column / kStride, rows, columns);
        if (number == 0 || sum > most) {
            best = number;
            most = sum;
        }
    }
    out[index] = static_cast<unsigned char>(best);
}
