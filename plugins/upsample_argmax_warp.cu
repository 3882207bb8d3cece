// Logits (count, C, h, w) -> labels (count, H, W), as upsample_argmax_warp.cuh says; a logit that is not finite sets `flag` to 1.
#include "upsample_argmax_warp.cuh"

extern "C" __global__ void __launch_bounds__(256, 4)
    upsample_argmax_warp_f32(const float* __restrict__ logits, int classes, int height, int width, unsigned char* labels, int out_height,
                        int out_width, const int* __restrict__ row_cells, const float* __restrict__ row_weight,
                        const int* __restrict__ column_cells, const float* __restrict__ column_weight,
                        const int* __restrict__ column_cell, int* flag) {
    rtf::upsample_by_warps({classes, height, width, out_height, out_width, row_cells, row_weight, column_cells, column_weight,
                           column_cell},
                          logits, labels, flag);
}

extern "C" __global__ void __launch_bounds__(256, 4)
    upsample_argmax_warp_f16(const rtf::half* __restrict__ logits, int classes, int height, int width, unsigned char* labels, int out_height,
                        int out_width, const int* __restrict__ row_cells, const float* __restrict__ row_weight,
                        const int* __restrict__ column_cells, const float* __restrict__ column_weight,
                        const int* __restrict__ column_cell, int* flag) {
    rtf::upsample_by_warps({classes, height, width, out_height, out_width, row_cells, row_weight, column_cells, column_weight,
                           column_cell},
                          logits, labels, flag);
}
