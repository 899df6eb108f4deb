// Decodes JSON objects into columns in one pass: one thread reads one row.
//
// A row is decoded only if it is the kind that sources mostly send; whatever else comes, good or bad, is left to the host with a status
// that says why. So there is one place that judges what is odd, and this one need only be right about what it accepts:
//
//   * the row is one object with nothing but white space around it, and valid UTF-8;
//   * on declared paths: keys without escapes, none twice; values of their column's type as below, or null;
//   * of all else the structure alone: strings are closed, brackets balance and match, at most 64 deep beyond the declared objects, no
//     backslash outside strings. This is what the host's decoder asks of it too;
//   * if that is asked for: no key at the top but those in the tree, and nothing but objects on the way to a declared value.
//
//   BOOLEAN     true, false
//   INT64       an integer without point or exponent
//   INT32       the same, of at most as many bits as its column has
//   UINT32      the same, without sign
//   FLOAT64     any number; rounded once, to the nearest, by Eisel and Lemire's method (Lemire, "Number Parsing at a Gigabyte per Second",
//               2021); the few that the method can't decide, and those beyond all doubles, are left to the host
//   TEXT        a string without escapes, as a view into the payload; a number, true or false as it is written
//   TIME        RFC 3339 text, as a count of the column's unit since 1970
//   RAW         whatever has the structure of a value: its extent, for the host to judge; null is no value
//
// A column that is not kept is judged like the others, and nothing of it is written.
//
// Memory contract
//   reads   payload   bytes, aligned to 16, and 16 more that may be read after the last
//           ranges    u32[rows][2]   each row's first byte in `payload` and one past its last
//           nodes     JsonNode[node_count], at most 128; the first is the root, the children of one are neighbours
//           keys      u8[key_bytes]: the nodes' keys
//           kinds     u8[columns]    the kept columns' kinds
//           powers    u64[651][2]    powers of five from -342 to 308: the 128 highest bits, high word first
//   writes  words     u64[word columns][stride]      INT64, FLOAT64, TIME; of RAW the offset in `payload` and, in the upper half, the
//                                                    length; zero where there is no value
//           halves    u32[half columns][stride]      INT32, UINT32; zero where there is no value
//           views     Arrow views [text columns][stride]; zero where there is no value
//           flags     u32[boolean columns][stride / 32]   values of BOOLEAN columns, bit by bit
//           valid     u32[columns][stride / 32]      which rows have a value, bit by bit
//           seen      u64[node_count > 64 ? 2 : 1][stride]   which nodes' keys a row has, each its number's bit, 64 to a word; none in rows
//                                                    that are left to the host. Null: nobody asks
//           status    u8[rows]       0: decoded; else see Status, and then the row has no values
//   shared  u8[tile]: the block's part of the payload, if it fits; rows that don't are read from global memory; then the nodes and their keys

#define JSON_BLOCK 128
#define NO_NODE 0xffu
#define NO_PLACE 0xff
// Of `leave`: rows with a key at the top that isn't in the tree, and rows with something on the way to a declared value that is no object.
#define LEAVE_UNKNOWN 1u
#define LEAVE_BLOCKED 2u
#define SMALLEST_POWER (-342)
#define LARGEST_POWER 308

// Why a row is left to the host. The order is that of the host's counters.
enum Status : u8 {
  DECODED,
  NOT_ONE_OBJECT, // empty, an array, several objects, anything after the object
  STRUCTURE,      // brackets, commas, colons, quotes
  TOO_DEEP,
  UTF8,           // not valid, or outside strings
  ESCAPE,         // a backslash in a key or value that is read, or outside strings
  CONTROL,        // a control character in such a string
  TWICE,          // a declared key comes twice
  VALUE,          // not of its column's type, or written in a way that the host reads
  UNKNOWN_KEY,    // a key at the top that isn't in the tree
  BLOCKED         // something on the way to a declared value is no object
};

// Values of the first three are stepped over: of keys that are only noted, of objects that lead on (should they be none), of RAW columns.
enum Kind : u8 { NOTED, OBJECT, RAW, BOOLEAN, INT64, INT32, UINT32, FLOAT64, TEXT, TIME };

struct JsonNode {
  u32 key;    // where its key is in `keys`
  u16 length; // how long that is
  u8 kind;
  u8 column;  // its number among the kept columns
  u8 place;   // its number among those that are kept as it is; NO_PLACE: it is not kept
  u8 size;    // TIME: how many decimal digits of a second the unit has; INT32, UINT32: how many bits the column has
  u8 first;   // its children
  u8 count;
};

struct alignas(16) View {
  u32 length, prefix, buffer, offset;
};

// Some of 128 things.
struct Bits {
  u64 low, high;
};

INLINE bool has(const Bits &bits, u32 k) { return (k < 64 ? bits.low : bits.high) >> (k & 63) & 1; }
INLINE void add(Bits &bits, u32 k) {
  u64 bit = 1ull << (k & 63);
  if (k < 64) bits.low |= bit;
  else bits.high |= bit;
}

// A row being read.
struct Row {
  const u8 *bytes;
  u32 length;
  u32 at;
  u8 status;
};

INLINE u8 peek(const Row &row, u32 at) { return at < row.length ? row.bytes[at] : 0; }
INLINE bool is_digit(u8 c) { return (u8)(c - '0') < 10; }
// What numbers, true, false and null are made of.
INLINE bool is_word(u8 c) { return is_digit(c) || (u8)((c | 32) - 'a') < 26 || c == '+' || c == '-' || c == '.'; }
INLINE bool is_blank(u8 c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

INLINE void blank(Row &row) {
  while (is_blank(peek(row, row.at))) row.at++;
}

INLINE bool stop(Row &row, u8 status) {
  row.status = status;
  return false;
}

// Moves over one character of two bytes or more (RFC 3629: no overlong forms, no surrogates, none above U+10FFFF).
INLINE bool multibyte(Row &row) {
  u8 c = peek(row, row.at);
  u32 more = c < 0xc2 ? 0 : c < 0xe0 ? 1 : c < 0xf0 ? 2 : c < 0xf5 ? 3 : 0;
  u8 low = c == 0xe0 ? 0xa0 : c == 0xf0 ? 0x90 : 0x80, high = c == 0xed ? 0x9f : c == 0xf4 ? 0x8f : 0xbf;
  u8 second = peek(row, row.at + 1);
  if (!more || second < low || second > high) return stop(row, UTF8);
  for (u32 k = 2; k <= more; k++)
    if ((peek(row, row.at + k) & 0xc0) != 0x80) return stop(row, UTF8);
  row.at += more + 1;
  return true;
}

// Moves over a string, from its opening quote to past its closing one. One that is `read` has neither escapes nor control characters.
INLINE bool string(Row &row, bool read) {
  row.at++;
  while (row.at < row.length) {
    u8 c = row.bytes[row.at];
    if (c == '"') {
      row.at++;
      return true;
    }
    if (c >= 0x80) {
      if (!multibyte(row)) return false;
    } else if (c == '\\') {
      if (read) return stop(row, ESCAPE);
      // What is escaped is looked at again if it isn't ASCII.
      row.at += peek(row, row.at + 1) < 0x80 ? 2 : 1;
    } else {
      if (c < 0x20 && read) return stop(row, CONTROL);
      row.at++;
    }
  }
  return stop(row, STRUCTURE);
}

// Moves over a value that nobody reads.
INLINE bool skip(Row &row) {
  u8 c = peek(row, row.at);
  if (c == '"') return string(row, false);
  if (is_word(c)) {
    while (is_word(peek(row, row.at))) row.at++;
    return true;
  }
  if (c != '{' && c != '[') return stop(row, STRUCTURE);
  u64 kinds = 0; // of the open brackets, innermost lowest; 1 is curly
  u32 depth = 0;
  while (row.at < row.length) {
    c = row.bytes[row.at];
    if (c == '"') {
      if (!string(row, false)) return false;
      continue;
    }
    if (c == '{' || c == '[') {
      if (depth == 64) return stop(row, TOO_DEEP);
      kinds = kinds << 1 | (c == '{');
      depth++;
    } else if (c == '}' || c == ']') {
      if ((kinds & 1) != (c == '}')) return stop(row, STRUCTURE);
      kinds >>= 1;
      depth--;
    } else if (c == '\\') {
      return stop(row, ESCAPE);
    } else if (c >= 0x80) {
      return stop(row, UTF8);
    }
    row.at++;
    if (!depth) return true;
  }
  return stop(row, STRUCTURE);
}

// A number's parts.
struct Number {
  u64 digits;    // the first 19 significant ones
  int power;     // of ten
  bool negative;
  bool cut;      // some digit other than zero came after those 19
  bool whole;    // neither point nor exponent
  bool overflow; // more than 19 digits before the point
};

INLINE void digit(Number &number, u32 &count, u8 c) {
  u32 value = c - '0';
  if (count < 19) {
    number.digits = number.digits * 10 + value;
    count += number.digits != 0;
  } else {
    number.cut |= value != 0;
    number.power++;
  }
}

// Reads a number to JSON's grammar; what follows it is looked at by the caller.
INLINE bool number_at(Row &row, Number &number) {
  number = {0, 0, false, false, true, false};
  if (peek(row, row.at) == '-') {
    number.negative = true;
    row.at++;
  }
  if (!is_digit(peek(row, row.at))) return stop(row, VALUE);
  u32 count = 0;
  if (peek(row, row.at) == '0') {
    row.at++;
  } else {
    for (; is_digit(peek(row, row.at)); row.at++) digit(number, count, row.bytes[row.at]);
    number.overflow = number.power > 0;
  }
  if (peek(row, row.at) == '.') {
    number.whole = false;
    row.at++;
    if (!is_digit(peek(row, row.at))) return stop(row, VALUE);
    for (; is_digit(peek(row, row.at)); row.at++) {
      digit(number, count, row.bytes[row.at]);
      number.power--;
    }
  }
  if ((peek(row, row.at) | 32) == 'e') {
    number.whole = false;
    row.at++;
    bool minus = peek(row, row.at) == '-';
    if (minus || peek(row, row.at) == '+') row.at++;
    if (!is_digit(peek(row, row.at))) return stop(row, VALUE);
    int power = 0;
    for (; is_digit(peek(row, row.at)); row.at++)
      if (power < 100000) power = power * 10 + (row.bytes[row.at] - '0');
    number.power += minus ? -power : power;
  }
  if (is_word(peek(row, row.at))) return stop(row, VALUE);
  return true;
}

// The double nearest to digits * 10^power, without its sign; false if the method can't tell or there is none.
INLINE bool nearest(u64 digits, int power, const u64 *powers, u64 &bits) {
  bits = 0;
  if (!digits || power < SMALLEST_POWER) return true;
  if (power > LARGEST_POWER) return false;
  int zeros = __clzll((long long)digits);
  u64 normal = digits << zeros;
  const u64 *five = powers + 2 * (power - SMALLEST_POWER);
  u64 low = normal * five[0], high = __umul64hi(normal, five[0]);
  if ((high & 0x1ff) == 0x1ff) {
    u64 more = __umul64hi(normal, five[1]);
    low += more;
    high += low < more;
  }
  if (low == ~0ull && (power < -27 || power > 55)) return false;
  int upper = (int)(high >> 63);
  u64 mantissa = high >> (upper + 9);
  // floor(log2(10^power)), as a product: 217706 / 2^16 is log2(10).
  int exponent = ((217706 * power) >> 16) + 63 + upper - zeros + 1023;
  if (exponent <= 0) {
    if (1 - exponent >= 64) return true;
    mantissa >>= 1 - exponent;
    mantissa += mantissa & 1;
    mantissa >>= 1;
    // What rounds up to the least normal number carries into the exponent by itself.
    bits = mantissa;
    return true;
  }
  // Just between two doubles: to the even one.
  if (low <= 1 && power >= -4 && power <= 23 && (mantissa & 3) == 1 && mantissa << (upper + 9) == high) mantissa &= ~1ull;
  mantissa += mantissa & 1;
  mantissa >>= 1;
  if (mantissa >= 1ull << 53) {
    mantissa = 1ull << 52;
    exponent++;
  }
  if (exponent >= 2047) return false;
  bits = (mantissa & ~(1ull << 52)) | (u64)exponent << 52;
  return true;
}

INLINE bool float_of(const Number &number, const u64 *powers, u64 &bits) {
  if (!nearest(number.digits, number.power, powers, bits)) return false;
  if (number.cut) {
    // The number lies between these digits and the next: decided if both round to the same.
    u64 above;
    if (!nearest(number.digits + 1, number.power, powers, above) || above != bits) return false;
  }
  bits |= (u64)number.negative << 63;
  return true;
}

INLINE bool integer_of(const Number &number, const JsonNode &node, u64 &bits) {
  u64 most = node.kind == INT64    ? (1ull << 63) - !number.negative
             : node.kind == INT32  ? (1ull << (node.size - 1)) - !number.negative
             : number.negative     ? 0
                                   : (1ull << node.size) - 1;
  if (!number.whole || number.overflow || number.digits > most) return false;
  bits = number.negative ? 0 - number.digits : number.digits;
  return true;
}

// Two digits, or a number far above any of them.
INLINE u32 two(const u8 *text) { return is_digit(text[0]) && is_digit(text[1]) ? (text[0] - '0') * 10 + (text[1] - '0') : 1000000; }

// RFC 3339 text of `length` bytes as a count of 10^-digits seconds since 1970.
INLINE bool time_of(const u8 *text, u32 length, u32 digits, u64 &bits) {
  if (length < 20 || text[4] != '-' || text[7] != '-' || (text[10] != 'T' && text[10] != 't' && text[10] != ' ') || text[13] != ':' || text[16] != ':')
    return false;
  u32 year = two(text) * 100 + two(text + 2), month = two(text + 5), day = two(text + 8);
  u32 hour = two(text + 11), minute = two(text + 14), second = two(text + 17);
  if (year > 9999 || month - 1 > 11 || hour > 23 || minute > 59 || second > 59) return false;
  bool leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
  u32 last = month == 2 ? 28 + leap : 30 + ((month + (month > 7)) & 1);
  if (day - 1 >= last) return false;
  u32 at = 19, nanos = 0;
  if (text[at] == '.') {
    u32 places = 0;
    for (at++; at < length && is_digit(text[at]); at++, places++)
      if (places < 9) nanos = nanos * 10 + (text[at] - '0');
    if (places < 1 || places > 9) return false;
    for (; places < 9; places++) nanos *= 10;
  }
  i64 offset = 0;
  if (length - at == 1) {
    if ((text[at] | 32) != 'z') return false;
  } else {
    if (length - at != 6 || text[at + 3] != ':' || (text[at] != '+' && text[at] != '-')) return false;
    u32 hours = two(text + at + 1), minutes = two(text + at + 4);
    if (hours > 23 || minutes > 59) return false;
    offset = (i64)(hours * 60 + minutes) * 60;
    if (text[at] == '-') offset = -offset;
  }
  // Howard Hinnant's days_from_civil; one era is added so that year 0 stays above zero.
  u32 shifted = year + 400 - (month <= 2);
  u32 of_era = shifted % 400, of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
  i64 days = (i64)(shifted / 400) * 146097 + (of_era * 365 + of_era / 4 - of_era / 100 + of_year) - 719468 - 146097;
  i64 seconds = days * 86400 + (hour * 60 + minute) * 60 + second - offset;
  i64 scale = 1, step = 1000000000;
  for (u32 k = 0; k < digits; k++) {
    scale *= 10;
    step /= 10;
  }
  if (nanos % step) return false;
  // Nanoseconds reach from 1677 to 2262; the outermost seconds are the host's.
  if (digits == 9 && (seconds < -9223372035ll || seconds > 9223372035ll)) return false;
  bits = (u64)(seconds * scale + (i64)(nanos / step));
  return true;
}

INLINE View view_of(const u8 *text, u32 length, u32 offset) {
  View view = {length, 0, 0, 0};
  u32 kept = length <= 12 ? length : 4;
  u32 words[3] = {0, 0, 0};
#pragma unroll
  for (u32 k = 0; k < 12; k++)
    if (k < kept) words[k >> 2] |= (u32)text[k] << (8 * (k & 3));
  view.prefix = words[0];
  view.buffer = words[1];
  view.offset = length <= 12 ? words[2] : offset;
  return view;
}

struct Columns {
  u64 *words;
  u32 *halves;
  View *views;
  u32 stride;
  u32 number;        // of this row
  Bits valid, flags; // by kept column
  Bits seen;         // by node
};

INLINE bool literal(Row &row, const char *text, u32 length) {
  for (u32 k = 0; k < length; k++)
    if (peek(row, row.at + k) != (u8)text[k]) return stop(row, VALUE);
  row.at += length;
  return is_word(peek(row, row.at)) ? stop(row, VALUE) : true;
}

// Reads the value of a column of the kinds above RAW. `base` is where the row lies in the payload.
INLINE bool value(Row &row, const JsonNode &node, u32 base, const u64 *powers, Columns &out) {
  u8 c = peek(row, row.at);
  if (c == 'n') return literal(row, "null", 4);
  bool kept = node.place != NO_PLACE;
  u32 start = row.at, text = 0, length = 0;
  u64 cell = (u64)node.place * out.stride + out.number, bits = 0;
  if (c == '"') {
    if (node.kind != TEXT && node.kind != TIME) return stop(row, VALUE);
    if (!string(row, true)) return false;
    text = start + 1;
    length = row.at - start - 2;
    if (node.kind == TIME && !time_of(row.bytes + text, length, node.size, bits)) return stop(row, VALUE);
  } else if (c == 't' || c == 'f') {
    if (node.kind != BOOLEAN && node.kind != TEXT) return stop(row, VALUE);
    if (!(c == 't' ? literal(row, "true", 4) : literal(row, "false", 5))) return false;
    text = start;
    length = row.at - start;
  } else {
    if (node.kind == BOOLEAN || node.kind == TIME) return stop(row, VALUE);
    Number number;
    if (!number_at(row, number)) return false;
    text = start;
    length = row.at - start;
    if (node.kind != TEXT && !(node.kind == FLOAT64 ? float_of(number, powers, bits) : integer_of(number, node, bits))) return stop(row, VALUE);
  }
  if (!kept) return true;
  if (node.kind == TEXT) {
    out.views[cell] = view_of(row.bytes + text, length, base + text);
  } else if (node.kind == BOOLEAN) {
    if (c == 't') add(out.flags, node.column);
  } else if (node.kind == INT32 || node.kind == UINT32) {
    out.halves[cell] = (u32)bits;
  } else {
    out.words[cell] = bits;
  }
  add(out.valid, node.column);
  return true;
}

// Gives the extent of a value of a RAW column, which begins at `start` and was stepped over; null has none.
INLINE void extent(const Row &row, const JsonNode &node, u32 start, u32 base, Columns &out) {
  u32 length = row.at - start;
  const u8 *text = row.bytes + start;
  if (length == 4 && text[0] == 'n' && text[1] == 'u' && text[2] == 'l' && text[3] == 'l') return;
  out.words[(u64)node.place * out.stride + out.number] = (u64)length << 32 | (base + start);
  add(out.valid, node.column);
}

// The child of `parent` that has the key at `text`. Keys mostly come in the order in which they came before, so the search goes round
// from where the last one was found.
INLINE u32 child_of(const JsonNode *nodes, const u8 *keys, u32 parent, const u8 *text, u32 length, u32 &next) {
  u32 first = nodes[parent].first, count = nodes[parent].count;
  for (u32 k = 0; k < count; k++) {
    if (next >= count) next = 0;
    const JsonNode &node = nodes[first + next];
    next++;
    if (node.length != length) continue;
    u32 i = 0;
    while (i < length && keys[node.key + i] == text[i]) i++;
    if (i == length) return first + next - 1;
  }
  return NO_NODE;
}

// Reads one row; false if it is left to the host.
INLINE bool object(Row &row, u32 base, const JsonNode *nodes, const u8 *keys, const u64 *powers, u32 leave, Columns &out) {
  blank(row);
  if (peek(row, row.at) != '{') return stop(row, NOT_ONE_OBJECT);
  u32 node = 0;
  u64 outer = 0; // the objects around this one, eight bits each
  u32 next = 0;
  bool opened = true;
  for (;;) {
    if (opened) {
      row.at++;
      blank(row);
      next = 0;
    }
    if (!opened || peek(row, row.at) != '}') {
      if (peek(row, row.at) != '"') return stop(row, STRUCTURE);
      u32 start = row.at + 1;
      if (!string(row, true)) return false;
      u32 child = child_of(nodes, keys, node, row.bytes + start, row.at - 1 - start, next);
      blank(row);
      if (peek(row, row.at) != ':') return stop(row, STRUCTURE);
      row.at++;
      blank(row);
      u8 kind = NOTED;
      if (child != NO_NODE) {
        kind = nodes[child].kind;
        // Nothing hangs on how often a key comes that is only noted.
        if (kind != NOTED && has(out.seen, child)) return stop(row, TWICE);
        add(out.seen, child);
      } else if (!node && (leave & LEAVE_UNKNOWN)) {
        return stop(row, UNKNOWN_KEY);
      }
      if (kind == OBJECT) {
        if (peek(row, row.at) == '{') {
          outer = outer << 8 | node;
          node = child;
          opened = true;
          continue;
        }
        if (leave & LEAVE_BLOCKED) return stop(row, BLOCKED);
      }
      if (kind > RAW) {
        if (!value(row, nodes[child], base, powers, out)) return false;
      } else {
        u32 from = row.at;
        if (!skip(row)) return false;
        if (kind == RAW) extent(row, nodes[child], from, base, out);
      }
      blank(row);
      opened = false;
      if (peek(row, row.at) == ',') {
        row.at++;
        blank(row);
        continue;
      }
      if (peek(row, row.at) != '}') return stop(row, STRUCTURE);
    }
    // An object ends; so may those around it.
    for (;;) {
      row.at++;
      blank(row);
      if (!node) return row.at == row.length ? true : stop(row, NOT_ONE_OBJECT);
      u32 done = node;
      node = (u32)(outer & 0xff);
      outer >>= 8;
      next = done - nodes[node].first + 1;
      opened = false;
      u8 c = peek(row, row.at);
      if (c == ',') {
        row.at++;
        blank(row);
        break;
      }
      if (c != '}') return stop(row, STRUCTURE);
    }
  }
}

extern "C" __global__ void __launch_bounds__(JSON_BLOCK)
json_decode(const u8 *__restrict__ payload, const u32 *__restrict__ ranges, u32 rows, u32 tile, const JsonNode *__restrict__ nodes,
            u32 node_count, const u8 *__restrict__ keys, u32 key_bytes, const u64 *__restrict__ powers, const u8 *__restrict__ kinds,
            u32 columns, u32 leave, u32 stride, u64 *__restrict__ words, u32 *__restrict__ halves, View *__restrict__ views,
            u32 *__restrict__ flags, u32 *__restrict__ valid, u64 *__restrict__ seen, u8 *__restrict__ status) {
  DYNAMIC_SHARED(uint4, staged);
  JsonNode *tree = (JsonNode *)(staged + tile / 16);
  u8 *names = (u8 *)(tree + node_count);
  u32 first = blockIdx.x * JSON_BLOCK, last = rows - first < JSON_BLOCK ? rows : first + JSON_BLOCK;
  for (u32 k = threadIdx.x; k < node_count; k += JSON_BLOCK) tree[k] = nodes[k];
  for (u32 k = threadIdx.x; k < key_bytes; k += JSON_BLOCK) names[k] = keys[k];
  // From the first row's first byte, down to a multiple of 16, as far as the tile reaches.
  u32 begin = ranges[2 * first] & ~15u, end = ranges[2 * last - 1];
  u32 size = end < begin ? 0 : end - begin < tile ? end - begin : tile;
  for (u32 k = threadIdx.x; k < (size + 15) / 16; k += JSON_BLOCK) staged[k] = ((const uint4 *)(payload + begin))[k];
  __syncthreads();

  u32 number = first + threadIdx.x;
  Columns out = {words, halves, views, stride, number, {0, 0}, {0, 0}, {0, 0}};
  if (number < rows) {
    u32 base = ranges[2 * number], past = ranges[2 * number + 1];
    bool near = base >= begin && past >= base && past - begin <= size;
    Row row = {near ? (const u8 *)staged + (base - begin) : payload + base, past - base, 0, DECODED};
    if (!object(row, base, tree, names, powers, leave, out)) out.valid = out.flags = out.seen = {0, 0};
    status[number] = row.status;
    if (seen) {
      seen[number] = out.seen.low;
      if (node_count > 64) seen[(u64)stride + number] = out.seen.high;
    }
  }
  // Values first of all, then their bits: a warp writes a word.
  for (u32 c = 0, word = 0, half = 0, text = 0, flag = 0; c < columns; c++) {
    bool given = has(out.valid, c);
    u8 kind = kinds[c];
    if (kind == TEXT) {
      if (!given && number < rows) views[(u64)text * stride + number] = {0, 0, 0, 0};
      text++;
    } else if (kind == BOOLEAN) {
      u32 set = __ballot_sync(ALL_LANES, has(out.flags, c));
      if (threadIdx.x % 32 == 0 && number < rows) flags[(u64)flag * (stride / 32) + number / 32] = set;
      flag++;
    } else if (kind == INT32 || kind == UINT32) {
      if (!given && number < rows) halves[(u64)half * stride + number] = 0;
      half++;
    } else {
      if (!given && number < rows) words[(u64)word * stride + number] = 0;
      word++;
    }
    u32 set = __ballot_sync(ALL_LANES, given);
    if (threadIdx.x % 32 == 0 && number < rows) valid[(u64)c * (stride / 32) + number / 32] = set;
  }
}
EXPORT_KERNEL(json_decode)
