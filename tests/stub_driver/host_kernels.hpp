// Kernels of plugins/ as the stub driver launches them: parameters lie in slots of 8 bytes each, as the driver copied them.
#pragma once

#include <type_traits>
#include <utility>

#include "cuda_on_host.hpp"

// As in driver.h.
struct HostKernel {
    int (*run)(const int* dims, std::uint64_t* slots);
    int count;
    const unsigned char* sizes;
    const unsigned char* pointers;
    int max_threads;
};

template <typename T>
T from_slot(const std::uint64_t& slot) {
    static_assert(sizeof(T) <= sizeof slot, "a slot holds 8 bytes");
    T value;
    std::memcpy(&value, &slot, sizeof value);
    return value;
}

template <auto kernel>
struct OnHost;

template <typename... P, void (*kernel)(P...)>
struct OnHost<kernel> {
    static constexpr unsigned char sizes[] = {sizeof(P)..., 0};
    static constexpr unsigned char pointers[] = {std::is_pointer_v<P>..., 0};

    template <std::size_t... I>
    static void call(const std::uint64_t* slots, std::index_sequence<I...>) {
        kernel(from_slot<P>(slots[I])...);
    }

    static int run(const int* dims, std::uint64_t* slots) {
        return emulated::launch(dims, [&] { call(slots, std::index_sequence_for<P...>{}); });
    }

    static constexpr HostKernel entry(int max_threads) { return {run, static_cast<int>(sizeof...(P)), sizes, pointers, max_threads}; }
};
