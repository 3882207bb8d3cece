// One byte of a coloured frame.
#pragma once

#include "bilinear.cuh"

namespace rtf {

// keep * value + alpha * colour, rounded half up; keep + alpha is 1.
RTF_HD unsigned char blend(unsigned char value, unsigned char colour, float keep, float alpha) {
    const float dimmed = scale_add(value, keep, 0.5f);
    return static_cast<unsigned char>(static_cast<int>(scale_add(colour, alpha, dimmed)));
}

}  // namespace rtf
