// BERT's tokenizer: Python strings to token ids, in plain C++17 for any processor.
//
// The same ids as the Rust library `tokenizers`, whose three steps (normalizer, splitter, WordPiece) are one pass over
// the characters here. A text that needs more than that (see Kind::leave) is left to the library, never guessed.
//
// This file is Python's side and the threads; wordpiece.inc is the pass, vocabulary.inc the tokens, bert_unicode.inc
// what the library knows of Unicode.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>
#include <exception>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <utility>
#include <vector>

namespace {

#include "bert_unicode.inc"
#include "vocabulary.inc"
#include "wordpiece.inc"

// A Python string's characters, which the caller keeps alive.
struct Text {
    const void *characters;
    size_t size;
    int kind;  // bytes of a character
};

// Texts of one thread, and what became of them.
struct Part {
    size_t first, last;
    std::unique_ptr<Scratch> scratch;
    bool out_of_memory = false;
};

// What a call asks for, and two of its answers.
struct Work {
    const Tokenizer &tokenizer;
    const std::vector<Text> &texts;
    size_t room;  // tokens of a text without those that are put around it
    bool offsets;
    int32_t *lengths;    // -1: left to the library
    uint8_t *truncated;

    int append(const Text &text, Scratch &scratch) const {
        return offsets ? append<true>(text, scratch) : append<false>(text, scratch);
    }

    template <bool OFFSETS> int append(const Text &text, Scratch &scratch) const {
        const void *at = text.characters;
        switch (text.kind) {
            case 1: return tokenizer.append<OFFSETS>(static_cast<const uint8_t *>(at), text.size, room, scratch);
            case 2: return tokenizer.append<OFFSETS>(static_cast<const uint16_t *>(at), text.size, room, scratch);
            default: return tokenizer.append<OFFSETS>(static_cast<const uint32_t *>(at), text.size, room, scratch);
        }
    }

    static void surround(const std::vector<int32_t> &special, bool offsets, Scratch &scratch) {
        scratch.ids.insert(scratch.ids.end(), special.begin(), special.end());
        if (offsets) scratch.offsets.resize(scratch.offsets.size() + 2 * special.size());
    }

    void run(Part &part) const {
        Scratch &scratch = *part.scratch;
        for (size_t row = part.first; row < part.last; ++row) {
            const size_t begin = scratch.ids.size();
            surround(tokenizer.head, offsets, scratch);
            const int state = append(texts[row], scratch);
            surround(tokenizer.tail, offsets, scratch);
            if (state < 0) {
                scratch.ids.resize(begin);
                if (offsets) scratch.offsets.resize(2 * begin);
                scratch.places.clear();
            }
            lengths[row] = state < 0 ? -1 : int32_t(scratch.ids.size() - begin);
            truncated[row] = state > 0;
        }
    }

    void run_guarded(Part &part) const {
        try {
            run(part);
        } catch (const std::exception &) {
            part.out_of_memory = true;
        }
    }
};

// Cuts texts into at most `threads` parts of like many characters, each worth the start of a thread.
std::vector<Part> parts_of(const std::vector<Text> &texts, size_t threads) {
    constexpr size_t WORTH = 1 << 16;  // about half a millisecond
    size_t total = 0, passed = 0;
    for (const Text &text : texts) total += text.size;
    threads = std::min(threads, 1 + total / WORTH);
    std::vector<Part> parts;
    for (size_t row = 0; row < texts.size(); ++row) {
        if (parts.empty() || passed * threads >= total * parts.size()) parts.push_back({row, row, nullptr});
        parts.back().last = row + 1;
        passed += texts[row].size;
    }
    return parts;
}

// Runs each part on a thread, the first one on this.
void run_all(const Work &work, std::vector<Part> &parts, std::vector<std::thread> &threads) {
    for (size_t i = 1; i < parts.size(); ++i) {
        try {
            threads.emplace_back(&Work::run_guarded, &work, std::ref(parts[i]));
        } catch (const std::system_error &) {  // no thread to be had
            work.run_guarded(parts[i]);
        }
    }
    if (!parts.empty()) work.run_guarded(parts[0]);
    for (std::thread &thread : threads) thread.join();
}

constexpr const char *CAPSULE = "wordpiece.Tokenizer";

void close_tokenizer(PyObject *capsule) {
    delete static_cast<Tokenizer *>(PyCapsule_GetPointer(capsule, CAPSULE));
}

bool read_string(PyObject *object, std::string_view &to) {
    Py_ssize_t size;
    const char *bytes = PyUnicode_AsUTF8AndSize(object, &size);
    if (bytes) to = {bytes, size_t(size)};
    return bytes;
}

bool read_ids(PyObject *tuple, std::vector<int32_t> &to) {
    for (Py_ssize_t i = 0; i < PyTuple_Size(tuple); ++i) to.push_back(int32_t(PyLong_AsLong(PyTuple_GetItem(tuple, i))));
    return !PyErr_Occurred();
}

bool read_vocabulary(PyObject *vocabulary, std::string_view prefix, Tokenizer &tokenizer) {
    PyObject *key, *value;
    std::vector<std::pair<std::string_view, int32_t>> first, rest;
    std::string_view token;
    for (Py_ssize_t at = 0; PyDict_Next(vocabulary, &at, &key, &value);) {
        if (!read_string(key, token)) return false;
        first.emplace_back(token, int32_t(PyLong_AsLong(value)));
        if (token.size() > prefix.size() && token.substr(0, prefix.size()) == prefix)
            rest.emplace_back(token.substr(prefix.size()), first.back().second);
    }
    tokenizer.first.fill(first);
    tokenizer.rest.fill(rest);
    return !PyErr_Occurred();
}

bool read_added(PyObject *added, Tokenizer &tokenizer) {
    PyObject *key, *value;
    std::string_view token;
    for (Py_ssize_t at = 0; PyDict_Next(added, &at, &key, &value);) {
        if (!read_string(key, token)) return false;
        tokenizer.add({from_utf8(token), int32_t(PyLong_AsLong(value))});
    }
    return !PyErr_Occurred();
}

// open(vocabulary, added, stops, prefix, head, tail, options, unknown, most_characters): see wordpiece.py.
PyObject *open_tokenizer(PyObject *, PyObject *arguments) {
    PyObject *vocabulary, *added, *head, *tail, *stops, *prefix;
    unsigned options;
    int unknown;
    Py_ssize_t most;
    if (!PyArg_ParseTuple(arguments, "O!O!UUO!O!Iin", &PyDict_Type, &vocabulary, &PyDict_Type, &added, &stops, &prefix,
                          &PyTuple_Type, &head, &PyTuple_Type, &tail, &options, &unknown, &most))
        return nullptr;
    try {
        std::string_view prefix_bytes, stop_bytes;
        if (!read_string(prefix, prefix_bytes) || !read_string(stops, stop_bytes)) return nullptr;
        auto tokenizer = std::make_unique<Tokenizer>(options, unknown, size_t(most), from_utf8(stop_bytes));
        if (!read_vocabulary(vocabulary, prefix_bytes, *tokenizer) || !read_added(added, *tokenizer) ||
            !read_ids(head, tokenizer->head) || !read_ids(tail, tokenizer->tail))
            return nullptr;
        return PyCapsule_New(tokenizer.release(), CAPSULE, close_tokenizer);
    } catch (const std::exception &) {
        return PyErr_NoMemory();
    }
}

bool read_texts(PyObject *tuple, std::vector<Text> &texts) {
    for (Py_ssize_t i = 0; i < PyTuple_GET_SIZE(tuple); ++i) {
        PyObject *text = PyTuple_GET_ITEM(tuple, i);
        if (!PyUnicode_Check(text)) {
            PyErr_Format(PyExc_TypeError, "a text must be a str, not %.100s", Py_TYPE(text)->tp_name);
            return false;
        }
#if PY_VERSION_HEX < 0x030C0000
        if (PyUnicode_READY(text) < 0) return false;
#endif
        texts.push_back({PyUnicode_DATA(text), size_t(PyUnicode_GET_LENGTH(text)), int(PyUnicode_KIND(text))});
    }
    return true;
}

// The ids of all parts end to end, then their offsets if there are any, as a bytearray of int32.
PyObject *joined(const std::vector<Part> &parts, bool offsets) {
    size_t total = 0;
    for (const Part &part : parts) total += part.scratch->ids.size();
    PyObject *bytes = PyByteArray_FromStringAndSize(nullptr, Py_ssize_t((offsets ? 3 : 1) * total * sizeof(int32_t)));
    if (!bytes) return nullptr;
    char *to = PyByteArray_AS_STRING(bytes);
    const auto copy = [&to](const std::vector<int32_t> &numbers) {
        if (!numbers.empty()) memcpy(to, numbers.data(), numbers.size() * sizeof(int32_t));
        to += numbers.size() * sizeof(int32_t);
    };
    for (const Part &part : parts) copy(part.scratch->ids);
    if (offsets)
        for (const Part &part : parts) copy(part.scratch->offsets);
    return bytes;
}

// encode(tokenizer, texts, room, threads, offsets) -> (ids, lengths, truncated): see wordpiece.py.
PyObject *encode(PyObject *, PyObject *arguments) {
    PyObject *capsule, *tuple;
    Py_ssize_t room, threads;
    int offsets;
    if (!PyArg_ParseTuple(arguments, "OO!nnp", &capsule, &PyTuple_Type, &tuple, &room, &threads, &offsets)) return nullptr;
    auto *tokenizer = static_cast<Tokenizer *>(PyCapsule_GetPointer(capsule, CAPSULE));
    if (!tokenizer) return nullptr;
    PyObject *lengths = nullptr, *truncated = nullptr, *ids = nullptr;
    try {
        std::vector<Text> texts;
        if (!read_texts(tuple, texts)) return nullptr;
        lengths = PyByteArray_FromStringAndSize(nullptr, Py_ssize_t(texts.size() * sizeof(int32_t)));
        truncated = PyByteArray_FromStringAndSize(nullptr, Py_ssize_t(texts.size()));
        if (lengths && truncated) {
            const Work work{*tokenizer, texts, size_t(room), bool(offsets),
                            reinterpret_cast<int32_t *>(PyByteArray_AS_STRING(lengths)),
                            reinterpret_cast<uint8_t *>(PyByteArray_AS_STRING(truncated))};
            auto parts = parts_of(texts, size_t(std::max<Py_ssize_t>(threads, 1)));
            for (Part &part : parts) part.scratch = tokenizer->borrow();
            std::vector<std::thread> running;
            running.reserve(parts.size());
            bool out_of_memory = false;
            Py_BEGIN_ALLOW_THREADS
            run_all(work, parts, running);
            Py_END_ALLOW_THREADS
            for (const Part &part : parts) out_of_memory |= part.out_of_memory;
            ids = out_of_memory ? PyErr_NoMemory() : joined(parts, offsets);
            for (Part &part : parts) tokenizer->give_back(std::move(part.scratch));
        }
    } catch (const std::exception &) {
        PyErr_NoMemory();
    }
    PyObject *answer = ids ? PyTuple_Pack(3, ids, lengths, truncated) : nullptr;
    Py_XDECREF(ids);
    Py_XDECREF(lengths);
    Py_XDECREF(truncated);
    return answer;
}

PyMethodDef METHODS[] = {
    {"open", open_tokenizer, METH_VARARGS, nullptr},
    {"encode", encode, METH_VARARGS, nullptr},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef MODULE = {PyModuleDef_HEAD_INIT, "_wordpiece", nullptr, -1, METHODS, nullptr, nullptr, nullptr, nullptr};

}  // namespace

PyMODINIT_FUNC PyInit__wordpiece(void) { return PyModule_Create(&MODULE); }
