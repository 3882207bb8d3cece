// Copies a picture's bytes in threads.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "_native_rows.hpp"

namespace {

// A thread for less than this costs more than it saves.
constexpr std::ptrdiff_t kBytesAThread = 1 << 20;

// Copies `rows` rows of `row` bytes, which begin `stride` bytes apart, one behind the other.
void copy_part(const unsigned char* from, unsigned char* to, std::ptrdiff_t rows, std::ptrdiff_t row, std::ptrdiff_t stride) {
    if (stride == row) {
        std::memcpy(to, from, static_cast<std::size_t>(rows * row));
        return;
    }
    for (std::ptrdiff_t y = 0; y < rows; ++y) std::memcpy(to + y * row, from + y * stride, static_cast<std::size_t>(row));
}

void copy_in_threads(const unsigned char* from, unsigned char* to, std::ptrdiff_t rows, std::ptrdiff_t row, std::ptrdiff_t stride,
                     int threads) {
    const std::ptrdiff_t useful = std::max<std::ptrdiff_t>(1, rows * row / kBytesAThread);
    const int parts = static_cast<int>(std::min<std::ptrdiff_t>({threads, useful, rows}));
    std::atomic<int> next{0};  // if a thread could not be started, the others do its part
    on_threads(parts, [&](int) {
        for (int part = next++; part < parts; part = next++) {
            const std::ptrdiff_t first = rows * part / parts, last = rows * (part + 1) / parts;
            copy_part(from + first * stride, to + first * row, last - first, row, stride);
        }
    });
}

}  // namespace
