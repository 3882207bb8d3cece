// x (B * groups, size, n) -> the same: softmax over n, then divided by the sum over the `size` channels of a group, plus 1e-6. FP32
// inside. The double normalisation of GPU-friendly attention (arXiv 2210.07124, section 3.2).
//
// blockIdx.y is a group of an image, blockIdx.x a slice of n. Every block first reads its whole group, a warp a channel, for each
// channel's largest value and sum; then it writes its slice. So no block waits for another, at the price of reading a group once a
// slice. The floor is one read and one write of x. What is above it: the first pass, whose group comes from the cache at the rate of one
// multiprocessor, and the second reading of the slice. More slices than fill the GPU therefore gain nothing.
#include "grouped_double_norm.cuh"
#include "half.cuh"

namespace rtf {

constexpr int kLanes = 32;
constexpr int kMaxGroup = 2048;  // channels; their statistics take 16 KiB of shared memory
constexpr int kAtOnce = 8;       // values of a channel that a thread loads together

// One channel, read by one warp: its largest value and the sum; all lanes return the same.
template <typename T>
__device__ Softmax channel_softmax(const T* values, int n, int lane) {
    Softmax state;
    for (int start = lane; start < n; start += kLanes * kAtOnce) {
        float taken[kAtOnce];
        for (int i = 0; i < kAtOnce; ++i) {
            const int at = start + i * kLanes;
            taken[i] = at < n ? to_float(values[at]) : minus_infinity();
        }
        state = take(state, taken);
    }
    for (int distance = kLanes / 2; distance > 0; distance /= 2) {
        Softmax other;
        other.largest = __shfl_xor_sync(0xffffffffu, state.largest, distance);
        other.sum = __shfl_xor_sync(0xffffffffu, state.sum, distance);
        state = merge(state, other);
    }
    return state;
}

template <typename T>
__device__ void double_norm_block(const T* x, T* out, int size, int n, int slice) {
    __shared__ float largest[kMaxGroup], inverse[kMaxGroup];
    const long long group = static_cast<long long>(blockIdx.y) * size * n;
    const int lane = threadIdx.x % kLanes, warps = blockDim.x / kLanes;
    for (int c = threadIdx.x / kLanes; c < size; c += warps) {
        const Softmax found = channel_softmax(x + group + static_cast<long long>(c) * n, n, lane);
        if (lane == 0) {
            largest[c] = found.largest;
            inverse[c] = 1.0f / found.sum;
        }
    }
    __syncthreads();
    const int end = min_int(n, (blockIdx.x + 1) * slice);
    for (int i = blockIdx.x * slice + threadIdx.x; i < end; i += blockDim.x) {
        const T* column = x + group + i;
        float sum = 0.0f;
        for (int c = 0; c < size; ++c) sum += share(to_float(column[static_cast<long long>(c) * n]), largest[c], inverse[c]);
        const float factor = group_factor(sum);
        for (int c = 0; c < size; ++c) {
            const long long at = static_cast<long long>(c) * n;
            store(out + group + i + at, share(to_float(column[at]), largest[c], inverse[c]) * factor);
        }
    }
}

}  // namespace rtf

extern "C" __global__ void __launch_bounds__(1024)
    grouped_double_norm_f32(const float* __restrict__ x, int size, int n, int slice, float* __restrict__ out) {
    rtf::double_norm_block(x, out, size, n, slice);
}

extern "C" __global__ void __launch_bounds__(1024)
    grouped_double_norm_f16(const rtf::half* __restrict__ x, int size, int n, int slice, rtf::half* __restrict__ out) {
    rtf::double_norm_block(x, out, size, n, slice);
}
