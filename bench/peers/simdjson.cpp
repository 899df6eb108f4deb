// simdjson's On-Demand interface on match events: the eight values of each that `tidegate bench decode --cases statsbomb-8` decodes, into columns.
//
//   simdjson FILE RUNS: FILE has a payload a line. Prints, of the best run, "GB/s records sum", where the sum stands for what was read.
//
// It is as fast as we could make it: fields in the order of the document, keys compared as they are written, one parser, texts as views into
// the bytes (as Arrow's view arrays have them), columns that keep their memory. It does less than Tidegate: a timestamp stays text, a value
// of another type ends the program, fields that are stepped over are not looked at for UTF-8, and nobody counts them.
#include <simdjson.h>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string_view>
#include <vector>

using namespace simdjson;

struct Columns {
    std::vector<int64_t> match_id, minute, second;
    std::vector<std::string_view> type, team, player, event_time;
    std::vector<double> xg;
    std::vector<uint8_t> has_player, has_xg;

    void clear() {
        match_id.clear(), minute.clear(), second.clear(), type.clear(), team.clear(), player.clear(), event_time.clear(), xg.clear();
        has_player.clear(), has_xg.clear();
    }
};

// Where a text that has no escapes ends.
static std::string_view text(ondemand::raw_json_string raw) {
    const char *begin = raw.raw(), *end = begin;
    while (*end != '"') end++;
    return {begin, size_t(end - begin)};
}

// The text `name` of an object; keys are compared as they stand.
static std::string_view named(ondemand::value value) {
    for (auto field : value.get_object()) {
        if (field.key() == "name") return text(field.value().get_raw_json_string());
    }
    return {};
}

static void read(ondemand::parser &parser, const char *payload, size_t length, size_t capacity, Columns &columns) {
    auto document = parser.iterate(payload, length, capacity);
    bool player = false, xg = false;
    for (auto field : document.get_object()) {
        ondemand::raw_json_string key = field.key();
        switch (key.raw()[0]) {
            case 'm':
                if (key == "match_id") columns.match_id.push_back(field.value().get_int64());
                else if (key == "minute") columns.minute.push_back(field.value().get_int64());
                break;
            case 's':
                if (key == "second") columns.second.push_back(field.value().get_int64());
                else if (key == "shot") {
                    for (auto inner : field.value().get_object()) {
                        if (inner.key() == "statsbomb_xg") columns.xg.push_back(inner.value().get_double()), xg = true;
                    }
                }
                break;
            case 't':
                if (key == "type") columns.type.push_back(named(field.value()));
                else if (key == "team") columns.team.push_back(named(field.value()));
                break;
            case 'p':
                if (key == "player") columns.player.push_back(named(field.value())), player = true;
                break;
            case 'e':
                if (key == "event_time") columns.event_time.push_back(text(field.value().get_raw_json_string()));
                break;
        }
    }
    if (!player) columns.player.push_back({});
    if (!xg) columns.xg.push_back(0);
    columns.has_player.push_back(player), columns.has_xg.push_back(xg);
}

int main(int count, char **arguments) {
    if (count != 3) return std::fprintf(stderr, "simdjson FILE RUNS\n"), 2;
    padded_string bytes;
    if (auto error = padded_string::load(arguments[1]).get(bytes)) return std::fprintf(stderr, "%s: %s\n", arguments[1], error_message(error)), 1;
    std::vector<std::pair<size_t, size_t>> lines;
    for (size_t at = 0; at < bytes.size();) {
        const void *end = memchr(bytes.data() + at, '\n', bytes.size() - at);
        size_t past = end ? (const char *)end - bytes.data() : bytes.size();
        lines.emplace_back(at, past - at);
        at = past + 1;
    }
    size_t payload = bytes.size() - lines.size();
    ondemand::parser parser;
    Columns columns;
    double best = 1e9, sum = 0;
    for (int run = 0; run < std::atoi(arguments[2]); run++) {
        auto started = std::chrono::steady_clock::now();
        sum = 0;
        for (size_t at = 0; at < lines.size(); at++) {
            if (at % 8192 == 0) columns.clear();
            auto [begin, length] = lines[at];
            read(parser, bytes.data() + begin, length, bytes.size() + SIMDJSON_PADDING - begin, columns);
            sum += double(columns.match_id.back() + columns.minute.back() + columns.second.back()) + columns.xg.back() + columns.type.back().size() +
                   columns.team.back().size() + columns.player.back().size();
        }
        std::chrono::duration<double> took = std::chrono::steady_clock::now() - started;
        if (took.count() < best) best = took.count();
    }
    std::printf("%.3f %zu %.6g\n", payload / best / 1e9, lines.size(), sum);
}
