// RGB uint8 frames of one size (count, H, W, 3) -> normalised planes (count, 3, H', W') in the engine's type, in one pass. A thread
// makes one pixel, blockIdx.z is the image. The picture covers `rows` x `columns` pixels from (top, left); the others are zeroed.
#include "half.cuh"
#include "preprocess.cuh"

namespace rtf {

struct Picture {
    int top, left, rows, columns;
    const int* row_low;
    const float* row_weight;
    const int* column_low;
    const float* column_weight;
};

template <typename T>
__device__ void preprocess_thread(const unsigned char* frames, int height, int width, T* out, int out_height, int out_width,
                                  const Picture& picture, const float* scale, const float* bias) {
    const int x = blockIdx.x * blockDim.x + threadIdx.x, y = blockIdx.y * blockDim.y + threadIdx.y;
    if (x >= out_width || y >= out_height) return;
    float values[3] = {0.0f, 0.0f, 0.0f};
    const int row = y - picture.top, column = x - picture.left;
    if (row >= 0 && row < picture.rows && column >= 0 && column < picture.columns) {
        const unsigned char* frame = frames + 3ll * height * width * blockIdx.z;
        preprocess_pixel(frame, height, width, picture.row_low[row], picture.row_weight[row], picture.column_low[column],
                         picture.column_weight[column], scale, bias, values);
    }
    const long long plane = static_cast<long long>(out_height) * out_width;
    T* target = out + 3 * plane * blockIdx.z + static_cast<long long>(y) * out_width + x;
    for (int c = 0; c < 3; ++c) store(target + c * plane, values[c]);
}

}  // namespace rtf

extern "C" __global__ void preprocess_f32(const unsigned char* __restrict__ frames, int height, int width, float* __restrict__ out,
                                          int out_height, int out_width, int top, int left, int rows, int columns,
                                          const int* __restrict__ row_low, const float* __restrict__ row_weight,
                                          const int* __restrict__ column_low, const float* __restrict__ column_weight, float scale_r,
                                          float scale_g, float scale_b, float bias_r, float bias_g, float bias_b) {
    const float scale[3] = {scale_r, scale_g, scale_b}, bias[3] = {bias_r, bias_g, bias_b};
    rtf::preprocess_thread(frames, height, width, out, out_height, out_width,
                           {top, left, rows, columns, row_low, row_weight, column_low, column_weight}, scale, bias);
}

extern "C" __global__ void preprocess_f16(const unsigned char* __restrict__ frames, int height, int width, rtf::half* __restrict__ out,
                                          int out_height, int out_width, int top, int left, int rows, int columns,
                                          const int* __restrict__ row_low, const float* __restrict__ row_weight,
                                          const int* __restrict__ column_low, const float* __restrict__ column_weight, float scale_r,
                                          float scale_g, float scale_b, float bias_r, float bias_g, float bias_b) {
    const float scale[3] = {scale_r, scale_g, scale_b}, bias[3] = {bias_r, bias_g, bias_b};
    rtf::preprocess_thread(frames, height, width, out, out_height, out_width,
                           {top, left, rows, columns, row_low, row_weight, column_low, column_weight}, scale, bias);
}
