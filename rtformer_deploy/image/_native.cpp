// The hot ends of a frame on the CPU as a small CPython extension on the limited API (abi3): buffers in, checked; buffers
// filled by the loops of _native_rows.hpp, _native_confidence.hpp and _native_interpolate.hpp, areas outlined by
// _native_outlines.hpp, bytes copied by _native_copy.hpp, the GIL released.
#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cstdint>
#include <exception>
#include <initializer_list>
#include <limits>
#include <memory>
#include <vector>

#include "_native_copy.hpp"
#include "_native_dispatch.hpp"
#include "_native_outlines.hpp"

namespace {

// What one side of a frame or a grid is at most, so that sums of a side and a few never overflow an int.
constexpr int kMaxSide = 1 << 28;
constexpr int kMaxThreads = 1024;

bool are_sides(std::initializer_list<int> sizes) {
    return std::all_of(sizes.begin(), sizes.end(), [](int size) { return size >= 1 && size <= kMaxSide; });
}

// A buffer of the caller's, given back when it goes out of scope.
struct Buffer {
    Py_buffer view{};
    bool held = false;
    ~Buffer() {
        if (held) PyBuffer_Release(&view);
    }
    bool take(PyObject* object, bool writable) {
        held = PyObject_GetBuffer(object, &view, writable ? PyBUF_CONTIG : PyBUF_CONTIG_RO) == 0;
        return held;
    }
    // The bytes of one step of its first axis if they are contiguous, else 0.
    Py_ssize_t row_bytes() const {
        Py_ssize_t bytes = view.itemsize;
        for (int axis = view.ndim - 1; axis > 0; --axis) {
            if (view.shape[axis] != 1 && view.strides[axis] != bytes) return 0;
            bytes *= view.shape[axis];
        }
        return view.ndim < 1 ? 0 : bytes;
    }
    template <typename T>
    T* as() const { return static_cast<T*>(view.buf); }
    // Whether it is aligned and holds exactly as many values as the product of the sizes, which are at least 1. The length is
    // divided, because the product may be larger than any integer. The loops count in long, which has 32 bits on Windows.
    template <typename T>
    bool holds(std::initializer_list<Py_ssize_t> sizes) const {
        Py_ssize_t left = view.len;
        if (left > std::numeric_limits<long>::max() || reinterpret_cast<std::uintptr_t>(view.buf) % alignof(T) != 0) return false;
        for (const Py_ssize_t size : sizes) {
            if (left % size != 0) return false;
            left /= size;
        }
        return left == static_cast<Py_ssize_t>(sizeof(T));
    }
};

// Takes a call's buffers; the last one is written to.
template <int N>
bool take_all(Buffer (&buffers)[N], PyObject* const (&objects)[N]) {
    for (int i = 0; i < N; ++i) {
        if (!buffers[i].take(objects[i], i == N - 1)) return false;
    }
    return true;
}

// Fills the frame's rows from the grid's, on up to `threads` threads that have a scratch each, without the GIL.
template <typename Job, typename Own>
PyObject* fill_rows(const Job& job, int threads, void (*kernel)(const Job&, Own&, int, int)) {
    std::vector<Own> scratch;
    try {
        threads = std::min({threads, kMaxThreads, job.height + 1});
        for (int i = 0; i < threads; ++i) scratch.emplace_back(job);
    } catch (const std::exception&) {  // no memory, or a size beyond a vector's
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS
    share_rows(job.height + 1, threads, [&](int thread, int first, int last) { kernel(job, scratch[thread], first, last); });
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

// Shares `rows` out among up to `threads` threads that hold two rows of `row` floats each, without the GIL.
template <typename Job>
PyObject* fill_shared(const Job& job, int rows, size_t row, int threads, void (*kernel)(const Job&, float* const*, int, int)) {
    std::vector<float> values;
    try {
        threads = std::min({threads, kMaxThreads, rows});
        values.resize(2 * row * static_cast<size_t>(threads));
    } catch (const std::exception&) {  // no memory, or a size beyond a vector's
        return PyErr_NoMemory();
    }
    Py_BEGIN_ALLOW_THREADS
    share_rows(rows, threads, [&](int thread, int first, int last) {
        float* const held[2] = {values.data() + 2 * row * thread, values.data() + row * (2 * static_cast<size_t>(thread) + 1)};
        kernel(job, held, first, last);
    });
    Py_END_ALLOW_THREADS
    Py_RETURN_NONE;
}

PyObject* refuse(const char* what) {
    if (PyErr_Occurred() == nullptr) PyErr_SetString(PyExc_ValueError, what);
    return nullptr;
}

// Whether a table of cells starts at 0, never falls and ends at `last`.
bool ascends(const int* cells, int count, int last) {
    for (int i = 1; i < count; ++i) {
        if (cells[i] < cells[i - 1]) return false;
    }
    return cells[0] == 0 && cells[count - 1] == last;
}

bool within(const int* low, int count, int size) {
    return std::all_of(low, low + count, [size](int at) { return at >= 0 && at < size; });
}

PyObject* upsample_argmax(PyObject*, PyObject* args) {
    PyObject *logits, *labels, *row_cells, *row_weight, *column_cells, *column_weight;
    Upsample job{};
    int threads;
    if (!PyArg_ParseTuple(args, "OiiiOiiOOOOi", &logits, &job.classes, &job.height, &job.width, &labels, &job.out_height, &job.out_width,
                          &row_cells, &row_weight, &column_cells, &column_weight, &threads)) {
        return nullptr;
    }
    if (!are_sides({job.height, job.width, job.out_height, job.out_width}) || job.classes < 1 || job.classes > kMaxClasses || threads < 1) {
        return refuse("sizes and threads are at least 1, classes at most 256, a side at most 2^28");
    }
    Buffer buffers[6];
    PyObject* const objects[6] = {logits, row_cells, row_weight, column_cells, column_weight, labels};
    if (!take_all(buffers, objects)) return nullptr;
    if (!buffers[0].holds<float>({job.classes, job.height, job.width}) || !buffers[1].holds<int>({job.height + 2}) ||
        !buffers[2].holds<float>({job.out_height}) || !buffers[3].holds<int>({job.width + 2}) ||
        !buffers[4].holds<float>({job.out_width + kTile - 1}) || !buffers[5].holds<unsigned char>({job.out_height, job.out_width})) {
        return refuse("a buffer has another size or alignment than was said");
    }
    job.logits = buffers[0].as<const float>();
    job.row_cells = buffers[1].as<const int>();
    job.row_weight = buffers[2].as<const float>();
    job.column_cells = buffers[3].as<const int>();
    job.column_weight = buffers[4].as<const float>();
    job.labels = buffers[5].as<unsigned char>();
    if (!ascends(job.row_cells, job.height + 2, job.out_height) || !ascends(job.column_cells, job.width + 2, job.out_width)) {
        return refuse("the cells do not cover the frame");
    }
    // An odd number of cache lines a class, so that the classes of one cell do not fall into one set of the cache.
    job.stride = ((job.width + 2 + 15) / 16 | 1) * 16;
    return fill_rows(job, threads, kernels.upsample);
}

PyObject* preprocess(PyObject*, PyObject* args) {
    PyObject *frame, *out, *row_low, *row_weight, *column_low, *column_weight;
    Preprocess job{};
    int out_height, out_width, top, left, threads;
    if (!PyArg_ParseTuple(args, "OiiOiiiiiiOOOO(fff)(fff)i", &frame, &job.height, &job.width, &out, &out_height, &out_width, &top, &left,
                          &job.rows, &job.columns, &row_low, &row_weight, &column_low, &column_weight, &job.scale[0], &job.scale[1],
                          &job.scale[2], &job.bias[0], &job.bias[1], &job.bias[2], &threads)) {
        return nullptr;
    }
    if (!are_sides({job.height, job.width, out_height, out_width, job.rows, job.columns}) || top < 0 || left < 0 || threads < 1 ||
        job.rows > out_height - top || job.columns > out_width - left) {
        return refuse("the picture does not lie within the output, or a side is not between 1 and 2^28");
    }
    Buffer buffers[6];
    PyObject* const objects[6] = {frame, row_low, row_weight, column_low, column_weight, out};
    if (!take_all(buffers, objects)) return nullptr;
    if (!buffers[0].holds<unsigned char>({3, job.height, job.width}) || !buffers[1].holds<int>({job.rows}) ||
        !buffers[2].holds<float>({job.rows}) || !buffers[3].holds<int>({job.columns}) || !buffers[4].holds<float>({job.columns}) ||
        !buffers[5].holds<float>({3, out_height, out_width})) {
        return refuse("a buffer has another size or alignment than was said");
    }
    job.stride = out_width;
    job.plane = static_cast<long>(out_height) * out_width;
    job.frame = buffers[0].as<const unsigned char>();
    job.out = buffers[5].as<float>() + static_cast<long>(top) * out_width + left;
    const bool resizes = job.rows != job.height || job.columns != job.width;
    if (resizes) {
        job.row_low = buffers[1].as<const int>();
        job.row_weight = buffers[2].as<const float>();
        job.column_low = buffers[3].as<const int>();
        job.column_weight = buffers[4].as<const float>();
        if (!within(job.row_low, job.rows, job.height) || !within(job.column_low, job.columns, job.width)) {
            return refuse("a row or column lies outside the frame");
        }
    }
    return fill_shared(job, job.rows, resizes ? static_cast<size_t>(3) * job.columns : 0, threads, kernels.preprocess);
}

PyObject* interpolate(PyObject*, PyObject* args) {
    PyObject *logits, *out, *row_low, *row_high, *row_weight, *column_low, *column_high, *column_weight;
    Interpolate job{};
    int threads;
    if (!PyArg_ParseTuple(args, "OiiiOiiOOOOOOi", &logits, &job.classes, &job.height, &job.width, &out, &job.out_height, &job.out_width,
                          &row_low, &row_high, &row_weight, &column_low, &column_high, &column_weight, &threads)) {
        return nullptr;
    }
    if (!are_sides({job.height, job.width, job.out_height, job.out_width}) || job.classes < 1 || job.classes > kMaxClasses || threads < 1) {
        return refuse("sizes and threads are at least 1, classes at most 256, a side at most 2^28");
    }
    Buffer buffers[8];
    PyObject* const objects[8] = {logits, row_low, row_high, row_weight, column_low, column_high, column_weight, out};
    if (!take_all(buffers, objects)) return nullptr;
    if (!buffers[0].holds<float>({job.classes, job.height, job.width}) || !buffers[1].holds<int>({job.out_height}) ||
        !buffers[2].holds<int>({job.out_height}) || !buffers[3].holds<float>({job.out_height}) || !buffers[4].holds<int>({job.out_width}) ||
        !buffers[5].holds<int>({job.out_width}) || !buffers[6].holds<float>({job.out_width}) ||
        !buffers[7].holds<float>({job.classes, job.out_height, job.out_width})) {
        return refuse("a buffer has another size or alignment than was said");
    }
    job.logits = buffers[0].as<const float>();
    job.row_low = buffers[1].as<const int>();
    job.row_high = buffers[2].as<const int>();
    job.row_weight = buffers[3].as<const float>();
    job.column_low = buffers[4].as<const int>();
    job.column_high = buffers[5].as<const int>();
    job.column_weight = buffers[6].as<const float>();
    job.out = buffers[7].as<float>();
    if (!within(job.row_low, job.out_height, job.height) || !within(job.row_high, job.out_height, job.height) ||
        !within(job.column_low, job.out_width, job.width) || !within(job.column_high, job.out_width, job.width)) {
        return refuse("a row or column lies outside the grid");
    }
    return fill_shared(job, job.out_height, static_cast<size_t>(job.out_width), threads, kernels.interpolate);
}

PyObject* confidence(PyObject*, PyObject* args) {
    PyObject *logits, *levels, *row_cells, *row_weight, *column_low, *column_high, *column_weight;
    Confidence job{};
    int threads;
    if (!PyArg_ParseTuple(args, "OiiiOiiOOOOOi", &logits, &job.classes, &job.height, &job.width, &levels, &job.out_height, &job.out_width,
                          &row_cells, &row_weight, &column_low, &column_high, &column_weight, &threads)) {
        return nullptr;
    }
    if (!are_sides({job.height, job.width, job.out_height, job.out_width}) || job.classes < 1 || job.classes > kMaxClasses || threads < 1) {
        return refuse("sizes and threads are at least 1, classes at most 256, a side at most 2^28");
    }
    Buffer buffers[7];
    PyObject* const objects[7] = {logits, row_cells, row_weight, column_low, column_high, column_weight, levels};
    if (!take_all(buffers, objects)) return nullptr;
    if (!buffers[0].holds<float>({job.classes, job.height, job.width}) || !buffers[1].holds<int>({job.height + 2}) ||
        !buffers[2].holds<float>({job.out_height}) || !buffers[3].holds<int>({job.out_width}) || !buffers[4].holds<int>({job.out_width}) ||
        !buffers[5].holds<float>({job.out_width}) || !buffers[6].holds<unsigned char>({job.out_height, job.out_width})) {
        return refuse("a buffer has another size or alignment than was said");
    }
    job.logits = buffers[0].as<const float>();
    job.row_cells = buffers[1].as<const int>();
    job.row_weight = buffers[2].as<const float>();
    job.column_low = buffers[3].as<const int>();
    job.column_high = buffers[4].as<const int>();
    job.column_weight = buffers[5].as<const float>();
    job.levels = buffers[6].as<unsigned char>();
    if (!ascends(job.row_cells, job.height + 2, job.out_height)) return refuse("the cells do not cover the frame");
    if (!within(job.column_low, job.out_width, job.width) || !within(job.column_high, job.out_width, job.width)) {
        return refuse("a column lies outside the grid");
    }
    return fill_rows(job, threads, kernels.confidence);
}

// Bytes to other memory in threads: one core alone does not fill the memory's bandwidth, and the GIL is free meanwhile.
PyObject* copy_rows(PyObject*, PyObject* args) {
    PyObject *source, *target;
    int threads;
    if (!PyArg_ParseTuple(args, "OOi", &source, &target, &threads)) return nullptr;
    Buffer from, to;
    from.held = PyObject_GetBuffer(source, &from.view, PyBUF_STRIDED_RO) == 0;
    if (!from.held || !to.take(target, true)) return nullptr;
    const Py_ssize_t row = from.row_bytes();
    if (row < 1 || from.view.shape[0] < 1 || threads < 1) return refuse("there are no rows of contiguous bytes, or no threads");
    const Py_ssize_t rows = from.view.shape[0], stride = from.view.strides[0];
    if (!to.holds<unsigned char>({rows, row})) return refuse("a buffer has another size than the other");
    bool failed = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        copy_in_threads(from.as<const unsigned char>(), to.as<unsigned char>(), rows, row, stride, threads);
    } catch (const std::exception&) {  // no memory
        failed = true;
    }
    Py_END_ALLOW_THREADS
    if (failed) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyObject* outlines(PyObject*, PyObject* args) {
    PyObject* labels;
    int height, width, nodes;
    if (!PyArg_ParseTuple(args, "Oiip", &labels, &height, &width, &nodes)) return nullptr;
    if (!are_sides({height, width})) return refuse("a side is between 1 and 2^28");
    Buffer buffer;
    if (!buffer.take(labels, false)) return nullptr;
    if (!buffer.holds<unsigned char>({height, width})) return refuse("a buffer has another size or alignment than was said");
    std::unique_ptr<Outlines> result;
    bool failed = false;
    Py_BEGIN_ALLOW_THREADS
    try {
        result = std::make_unique<Outlines>(buffer.as<const unsigned char>(), height, width, nodes != 0);
    } catch (const std::exception&) {  // no memory
        failed = true;
    }
    Py_END_ALLOW_THREADS
    if (failed) return PyErr_NoMemory();
    const auto bytes = [](const auto& values) { return static_cast<Py_ssize_t>(values.size() * sizeof(values[0])); };
    return Py_BuildValue("y#y#", reinterpret_cast<const char*>(result->corners.data()), bytes(result->corners),
                         reinterpret_cast<const char*>(result->rings.data()), bytes(result->rings));
}

PyObject* instruction_set(PyObject*, PyObject*) { return PyUnicode_FromString(kernels.name); }

PyObject* limit_instruction_set(PyObject*, PyObject* args) {
    int left_out;
    if (!PyArg_ParseTuple(args, "i", &left_out)) return nullptr;
    if (left_out < 0) return refuse("the number of instruction sets to leave out is at least 0");
    kernels = choose(left_out);
    return PyUnicode_FromString(kernels.name);
}

PyMethodDef methods[] = {
    {"upsample_argmax", upsample_argmax, METH_VARARGS, "Logits (C, h, w) to labels (H, W); see rtformer_deploy.native."},
    {"preprocess", preprocess, METH_VARARGS, "An RGB frame to normalised planes; see rtformer_deploy.native."},
    {"interpolate", interpolate, METH_VARARGS, "Logits (C, h, w) to logits (C, H, W), from low, high and weight of rows and columns."},
    {"confidence", confidence, METH_VARARGS, "Logits (C, h, w) to the winner's softmax in 8 bits (H, W)."},
    {"copy_rows", copy_rows, METH_VARARGS, "Rows of bytes, a stride apart, to contiguous memory."},
    {"outlines", outlines, METH_VARARGS, "Labels (H, W) to corners and rings of their areas, as bytes."},
    {"instruction_set", instruction_set, METH_NOARGS, "The instruction set that the loops run on here."},
    {"limit_instruction_set", limit_instruction_set, METH_VARARGS, "Leaves the n best instruction sets out, for tests; 0 undoes it."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_native", "Pre- and post-processing of frames on the CPU.", -1, methods,
                      nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__native() { return PyModule_Create(&module); }
