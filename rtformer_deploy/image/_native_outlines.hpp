// The outlines of a label map's areas: for each connected area (pixels of one class that share sides) one outer ring and a ring for each
// hole, along the pixels' edges, with corners in pixels. Rings have the area on the right (clockwise on a screen, where y points down)
// and touch themselves and each other in points at most. With `nodes`, a ring also has a corner where two other areas meet on a straight
// edge of it, so that neighbours have all corners of the edges that they share.
#pragma once

#include <cstdint>
#include <unordered_map>
#include <vector>

namespace {

struct Corner {
    int x, y;
};

// What Python reads of a ring: the run of pixels that names its area, its class, its number of corners, and twice its signed
// area (positive: an outer ring).
struct Ring {
    std::int64_t area, label, corners, doubled;
};

// The areas of a label map, found row by row as runs of equal pixels that are joined to the runs above them.
class Areas {
public:
    Areas(const unsigned char* labels, int height, int width) : rows_(static_cast<size_t>(height) + 1) {
        for (int y = 0; y < height; ++y) {
            rows_[y] = static_cast<int>(starts_.size());
            const unsigned char* row = labels + static_cast<long>(y) * width;
            for (int x = 0; x < width; ++x) {
                if (x == 0 || row[x] != row[x - 1]) {
                    parents_.push_back(static_cast<int>(starts_.size()));
                    starts_.push_back(x);
                }
            }
            if (y > 0) join_row(row - width, row, width, y);
        }
        rows_[height] = static_cast<int>(starts_.size());
    }
    int first_run(int y) const { return rows_[y]; }
    int start(int run) const { return starts_[run]; }
    int find(int run) {
        while (parents_[run] != run) run = parents_[run] = parents_[parents_[run]];
        return run;
    }

private:
    std::vector<int> rows_, starts_, parents_;

    void join_row(const unsigned char* above, const unsigned char* row, int width, int y) {
        int upper = rows_[y - 1], lower = rows_[y];
        const int upper_end = rows_[y], lower_end = static_cast<int>(starts_.size());
        while (upper < upper_end && lower < lower_end) {
            const int upper_last = upper + 1 < upper_end ? starts_[upper + 1] : width;
            const int lower_last = lower + 1 < lower_end ? starts_[lower + 1] : width;
            if (above[starts_[upper]] == row[starts_[lower]]) join(upper, lower);
            if (upper_last <= lower_last) ++upper;
            if (lower_last <= upper_last) ++lower;
        }
    }
    void join(int one, int other) {
        one = find(one), other = find(other);
        if (one != other) parents_[one < other ? other : one] = one < other ? one : other;
    }
};

class Outlines {
public:
    std::vector<Corner> corners;
    std::vector<Ring> rings;

    Outlines(const unsigned char* labels, int height, int width, bool nodes)
        : labels_(labels), height_(height), width_(width), nodes_(nodes), seen_(static_cast<size_t>(height) * width) {
        Areas areas(labels, height, width);
        for (int y = 0; y < height; ++y) {
            int run = areas.first_run(y);
            for (int x = 0; x < width; ++x) {
                if (run + 1 < areas.first_run(y + 1) && areas.start(run + 1) == x) ++run;
                if (at(x, y) != at(x, y - 1) && !seen_[static_cast<size_t>(y) * width + x]) trace(x, y, areas.find(run));
            }
        }
    }

private:
    const unsigned char* labels_;
    int height_, width_;
    bool nodes_;
    std::vector<char> seen_;  // pixels whose upper edge lies on a ring that is done: every ring has such an edge

    int at(int x, int y) const {
        return x < 0 || y < 0 || x >= width_ || y >= height_ ? -1 : labels_[static_cast<long>(y) * width_ + x];
    }

    // Follows the ring that begins with the upper edge of pixel (x, y), and cuts it where it meets itself in a point.
    void trace(int x, int y, int area) {
        static constexpr int kAlongX[4] = {1, 0, -1, 0}, kAlongY[4] = {0, 1, 0, -1};   // the way along an edge: right, down, left, up
        static constexpr int kEndX[4] = {1, 1, 0, 0}, kEndY[4] = {0, 1, 1, 0};         // where the edge of a pixel ends
        const int label = at(x, y), first_x = x, first_y = y;
        std::vector<Corner> path;
        std::unordered_map<std::int64_t, size_t> meetings;  // a point where the area touches itself -> its place in the path
        int way = 0;
        do {
            if (way == 0) seen_[static_cast<size_t>(y) * width_ + x] = 1;
            const Corner end{x + kEndX[way], y + kEndY[way]};
            const int ahead_x = x + kAlongX[way], ahead_y = y + kAlongY[way];
            const int left = (way + 3) & 3;
            const int beyond_x = ahead_x + kAlongX[left], beyond_y = ahead_y + kAlongY[left];
            if (at(ahead_x, ahead_y) != label) {
                if (at(beyond_x, beyond_y) == label) cut(path, meetings, end, label, area);
                path.push_back(end);
                way = (way + 1) & 3;
            } else if (at(beyond_x, beyond_y) != label) {
                if (nodes_ && at(beyond_x, beyond_y) != at(x + kAlongX[left], y + kAlongY[left])) path.push_back(end);
                x = ahead_x, y = ahead_y;
            } else {
                path.push_back(end);
                x = beyond_x, y = beyond_y, way = left;
            }
        } while (way != 0 || x != first_x || y != first_y);
        emit(path, 0, label, area);
    }

    // The path is about to come to a point that it may have been at: what lies between is a ring of its own.
    void cut(std::vector<Corner>& path, std::unordered_map<std::int64_t, size_t>& meetings, Corner end, int label, int area) {
        const std::int64_t key = static_cast<std::int64_t>(end.y) * (static_cast<std::int64_t>(width_) + 1) + end.x;
        const auto [place, is_new] = meetings.try_emplace(key, path.size());
        if (is_new) return;
        const size_t from = place->second;
        if (from < path.size() && path[from].x == end.x && path[from].y == end.y) {
            emit(path, from, label, area);
            path.resize(from);
        }
        place->second = path.size();
    }

    void emit(const std::vector<Corner>& path, size_t from, int label, int area) {
        std::int64_t doubled = 0;
        for (size_t i = from; i < path.size(); ++i) {
            const Corner &one = path[i], &next = path[i + 1 < path.size() ? i + 1 : from];
            doubled += static_cast<std::int64_t>(one.x) * next.y - static_cast<std::int64_t>(next.x) * one.y;
            corners.push_back(one);
        }
        rings.push_back({area, label, static_cast<std::int64_t>(path.size() - from), doubled});
    }
};

}  // namespace
