// Enough of CUDA to run a kernel's source on the host: the threads of a block are fibers, which take turns at barriers, so shared memory,
// __syncthreads and the exchanges within a warp mean what they mean on a GPU. One block runs after another. A barrier that not every
// thread reaches is found out.
#pragma once

#undef _FORTIFY_SOURCE  // its longjmp refuses to go to another stack

#include <ucontext.h>

#include <csetjmp>
#include <cstdint>
#include <cstring>
#include <functional>
#include <vector>

#define __global__
#define __device__
#define __shared__ static
#define __launch_bounds__(...)
#define __restrict__

struct dim3 {
    unsigned int x = 1, y = 1, z = 1;
};

namespace emulated {

constexpr int kStack = 1 << 16;
constexpr unsigned int kLanes = 32;

struct Barrier {
    unsigned int expected = 0, arrived = 0, generation = 0;
};

struct Warp {
    Barrier barrier;
    std::uint64_t slots[kLanes] = {};
};

struct Fiber {
    std::jmp_buf place;
    std::vector<char> stack;
    unsigned int index = 0;
    bool started = false, done = false;
};

inline std::jmp_buf scheduler;
inline std::vector<Fiber> fibers;
inline std::vector<Warp> warps;
inline Barrier block_barrier;
inline Fiber* current = nullptr;
inline const std::function<void()>* body = nullptr;
inline unsigned long progress = 0;

}  // namespace emulated

inline dim3 gridDim, blockDim, blockIdx, threadIdx;

namespace emulated {

// Back to `run_block`. swapcontext would ask the kernel for the signal mask each time, which takes longer than the work between two barriers.
inline void yield() {
    if (_setjmp(current->place) == 0) _longjmp(scheduler, 1);
}

inline void wait(Barrier& barrier) {
    const unsigned int generation = barrier.generation;
    ++progress;
    if (++barrier.arrived == barrier.expected) {
        barrier.arrived = 0;
        ++barrier.generation;
        return;
    }
    while (barrier.generation == generation) yield();
}

inline Warp& my_warp() { return warps[current->index / kLanes]; }

// Every lane's value to every lane.
template <typename T, typename Use>
auto exchange(T value, const Use& use) {
    static_assert(sizeof(T) <= sizeof(std::uint64_t), "a slot holds 8 bytes");
    Warp& warp = my_warp();
    std::memcpy(&warp.slots[current->index % kLanes], &value, sizeof value);
    wait(warp.barrier);
    const auto result = use([&warp](unsigned int lane) {
        T other;
        std::memcpy(&other, &warp.slots[lane], sizeof other);
        return other;
    });
    wait(warp.barrier);
    return result;
}

// A fiber serves one thread of each block.
inline void enter() {
    for (;;) {
        (*body)();
        current->done = true;
        ++progress;
        yield();
    }
}

inline void start(Fiber& fiber) {
    ucontext_t context;
    fiber.started = true;
    fiber.stack.resize(kStack);
    getcontext(&context);
    context.uc_stack.ss_sp = fiber.stack.data();
    context.uc_stack.ss_size = fiber.stack.size();
    makecontext(&context, enter, 0);
    setcontext(&context);
}

// Runs a thread up to its next barrier, or to its end.
inline void resume(Fiber& fiber) {
    current = &fiber;
    if (_setjmp(scheduler) != 0) return;
    if (fiber.started) _longjmp(fiber.place, 1);
    start(fiber);
}

// Runs the block blockIdx; false where its threads wait for each other for ever.
inline bool run_block() {
    const unsigned int threads = blockDim.x * blockDim.y * blockDim.z;
    block_barrier = {threads};
    warps.assign((threads + kLanes - 1) / kLanes, {});
    for (unsigned int w = 0; w < warps.size(); ++w) warps[w].barrier.expected = threads - w * kLanes < kLanes ? threads - w * kLanes : kLanes;
    if (fibers.size() < threads) fibers.resize(threads);
    for (unsigned int i = 0; i < threads; ++i) {
        Fiber& fiber = fibers[i];
        fiber.index = i;
        fiber.done = false;
    }
    for (unsigned int left = threads; left > 0;) {
        const unsigned long before = progress;
        left = 0;
        for (unsigned int i = 0; i < threads; ++i) {
            Fiber& fiber = fibers[i];
            if (fiber.done) continue;
            threadIdx = {fiber.index % blockDim.x, fiber.index / blockDim.x % blockDim.y, fiber.index / (blockDim.x * blockDim.y)};
            resume(fiber);
            left += !fiber.done;
        }
        if (left == 0 || progress != before) continue;
        fibers.clear();  // those that wait would go on in the next block
        return false;
    }
    return true;
}

// dims: grid x, y, z, block x, y, z. 0, or 1 where threads wait for each other for ever.
inline int launch(const int* dims, const std::function<void()>& kernel) {
    const auto size = [](int value) { return static_cast<unsigned int>(value); };
    gridDim = {size(dims[0]), size(dims[1]), size(dims[2])};
    blockDim = {size(dims[3]), size(dims[4]), size(dims[5])};
    body = &kernel;
    for (unsigned int z = 0; z < gridDim.z; ++z) {
        for (unsigned int y = 0; y < gridDim.y; ++y) {
            for (unsigned int x = 0; x < gridDim.x; ++x) {
                blockIdx = {x, y, z};
                if (!run_block()) return 1;
            }
        }
    }
    return 0;
}

}  // namespace emulated

inline void __syncthreads() { emulated::wait(emulated::block_barrier); }
inline void __syncwarp() { emulated::wait(emulated::my_warp().barrier); }

inline unsigned int __ballot_sync(unsigned int, bool vote) {
    return emulated::exchange(vote, [](const auto& of) {
        unsigned int word = 0;
        for (unsigned int lane = 0; lane < emulated::my_warp().barrier.expected; ++lane) word |= static_cast<unsigned int>(of(lane)) << lane;
        return word;
    });
}

template <typename T>
T __shfl_xor_sync(unsigned int, T value, int distance) {
    const unsigned int lane = emulated::current->index % emulated::kLanes;
    return emulated::exchange(value, [&](const auto& of) { return of(lane ^ static_cast<unsigned int>(distance)); });
}

template <typename T>
T __shfl_sync(unsigned int, T value, int lane) {
    return emulated::exchange(value, [&](const auto& of) { return of(static_cast<unsigned int>(lane)); });
}

inline int __ffs(int word) { return __builtin_ffs(word); }
inline int __popc(unsigned int word) { return __builtin_popcount(word); }

template <typename T>
T atomicAdd(T* address, T value) {
    const T before = *address;
    *address += value;
    return before;
}

template <typename T>
T atomicOr(T* address, T value) {
    const T before = *address;
    *address |= value;
    return before;
}
