// Copies a picture's bytes to memory that a device reads next, in threads.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <exception>
#include <thread>

#if defined(__SSE2__) || defined(_M_X64)
#include <emmintrin.h>
#define RTF_STREAMS 1
#else
#define RTF_STREAMS 0
#endif

namespace {

// What a thread takes at a time. To start one for less costs more than it saves.
constexpr std::ptrdiff_t kBytesAPart = 1 << 20;
// What is smaller may as well stay in the cache.
constexpr std::size_t kStreamedBytes = 1 << 18;

#if RTF_STREAMS
// Stores past the caches: the processor does not read `to` first, which is a third of what a copy moves, and keeps what it has cached.
void copy_streamed(const unsigned char* from, unsigned char* to, std::size_t size) {
    constexpr std::size_t kStep = 64;  // a cache line
    const std::size_t head = std::min(size, (kStep - reinterpret_cast<std::uintptr_t>(to) % kStep) % kStep);
    std::memcpy(to, from, head);
    std::size_t at = head;
    for (; at + kStep <= size; at += kStep) {
        const auto* source = reinterpret_cast<const __m128i*>(from + at);
        auto* target = reinterpret_cast<__m128i*>(to + at);
        _mm_prefetch(reinterpret_cast<const char*>(from + at + 8 * kStep), _MM_HINT_NTA);
        const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
        const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
        _mm_stream_si128(target, a);
        _mm_stream_si128(target + 1, b);
        _mm_stream_si128(target + 2, c);
        _mm_stream_si128(target + 3, d);
    }
    std::memcpy(to + at, from + at, size - at);
    _mm_sfence();  // the caller tells the device right after
}
#endif

void copy_bytes(const unsigned char* from, unsigned char* to, std::size_t size) {
#if RTF_STREAMS
    if (size >= kStreamedBytes) return copy_streamed(from, to, size);
#endif
    std::memcpy(to, from, size);
}

// Copies `rows` rows of `row` bytes, which begin `stride` bytes apart, one behind the other.
void copy_part(const unsigned char* from, unsigned char* to, std::ptrdiff_t rows, std::ptrdiff_t row, std::ptrdiff_t stride) {
    if (stride == row) return copy_bytes(from, to, static_cast<std::size_t>(rows * row));
    for (std::ptrdiff_t y = 0; y < rows; ++y) copy_bytes(from + y * stride, to + y * row, static_cast<std::size_t>(row));
}

// A copy that threads share out among themselves. It lives until the last of them has looked at it.
struct Copy {
    const unsigned char* from;
    unsigned char* to;
    std::ptrdiff_t rows, row, stride, parts;
    std::atomic<std::ptrdiff_t> next{0}, done{0};

    void work() {
        for (std::ptrdiff_t part = next++; part < parts; part = next++) {
            const std::ptrdiff_t first = rows * part / parts, last = rows * (part + 1) / parts;
            copy_part(from + first * stride, to + first * row, last - first, row, stride);
            done.fetch_add(1, std::memory_order_release);
        }
    }
};

// Waits for the bytes and not for the threads: on a busy machine one may start after the others have done everything.
void copy_in_threads(const unsigned char* from, unsigned char* to, std::ptrdiff_t rows, std::ptrdiff_t row, std::ptrdiff_t stride,
                     int threads) {
    const std::ptrdiff_t parts = std::max<std::ptrdiff_t>(1, std::min(rows, rows * row / kBytesAPart));
    if (threads <= 1 || parts == 1) return copy_part(from, to, rows, row, stride);
    const auto copy = std::make_shared<Copy>();
    copy->from = from;
    copy->to = to;
    copy->rows = rows;
    copy->row = row;
    copy->stride = stride;
    copy->parts = parts;
    for (std::ptrdiff_t i = 1; i < std::min<std::ptrdiff_t>(threads, parts); ++i) {
        try {
            std::thread([copy] { copy->work(); }).detach();
        } catch (const std::exception&) {  // no thread, or no memory for one: the others do its parts
            break;
        }
    }
    copy->work();
    while (copy->done.load(std::memory_order_acquire) < parts) std::this_thread::yield();
}

}  // namespace
