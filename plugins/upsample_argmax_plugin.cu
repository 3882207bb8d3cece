// upsample_argmax.cu for TensorRT's ahead-of-time plugins, which hand over input tensors, then numbers, then outputs. No flag: like an
// ArgMax in the graph it says nothing of logits that are not finite.
#include "upsample_argmax_quarter.cuh"

extern "C" __global__ void __launch_bounds__(256, 4)
    upsample_argmax_plugin_f32(const float* __restrict__ logits, const int* __restrict__ row_cells, const float* __restrict__ row_weight,
                               const int* __restrict__ column_cells, const float* __restrict__ column_weight,
                               const int* __restrict__ column_cell, int classes, int height, int width, int out_height, int out_width,
                               unsigned char* labels) {
    rtf::upsample_by_quarters({classes, height, width, out_height, out_width, row_cells, row_weight, column_cells, column_weight,
                              column_cell},
                             logits, labels, nullptr);
}

extern "C" __global__ void __launch_bounds__(256, 4)
    upsample_argmax_plugin_f16(const rtf::half* __restrict__ logits, const int* __restrict__ row_cells, const float* __restrict__ row_weight,
                               const int* __restrict__ column_cells, const float* __restrict__ column_weight,
                               const int* __restrict__ column_cell, int classes, int height, int width, int out_height, int out_width,
                               unsigned char* labels) {
    rtf::upsample_by_quarters({classes, height, width, out_height, out_width, row_cells, row_weight, column_cells, column_weight,
                              column_cell},
                             logits, labels, nullptr);
}
