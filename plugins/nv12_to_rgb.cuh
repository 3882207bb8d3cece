// One pixel of NV12 to RGB, in the whole numbers of FFmpeg's own conversion: see rtformer_deploy/image/nv12.py.
#pragma once

#include "bilinear.cuh"

namespace rtf {

// `luma_offset` is times 8, the others are in 1/8192.
struct YuvFactors {
    int luma_offset, luma, red_v, green_u, green_v, blue_u;
};

RTF_HD unsigned char to_byte(int value) { return static_cast<unsigned char>(max_int(0, min_int(value, 255))); }

// >> rounds down, below zero as well.
RTF_HD void yuv_to_rgb(int y, int u, int v, const YuvFactors& factors, unsigned char* rgb) {
    const int blueness = 8 * u - 8 * 128, redness = 8 * v - 8 * 128;
    const int grey = ((8 * y - factors.luma_offset) * factors.luma) >> 16;
    rgb[0] = to_byte(grey + ((redness * factors.red_v) >> 16));
    rgb[1] = to_byte(grey + ((blueness * factors.green_u) >> 16) + ((redness * factors.green_v) >> 16));
    rgb[2] = to_byte(grey + ((blueness * factors.blue_u) >> 16));
}

struct Place {
    int row, column;
};

// Where a pixel of the turned picture lies in the stored one (`height` x `width`); `turns` quarters counter-clockwise, as np.rot90.
RTF_HD Place stored_place(Place place, int height, int width, int turns) {
    switch (turns) {
        case 1: return {place.column, width - 1 - place.row};
        case 2: return {height - 1 - place.row, width - 1 - place.column};
        case 3: return {height - 1 - place.column, place.row};
        default: return place;
    }
}

}  // namespace rtf
