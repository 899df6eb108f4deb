// A stand-in for NVRTC that makes kernels for the emulator: a text is compiled for the CPU by the system's C++ compiler, as the kernels of
// this program are, and what is given out as machine code is a shared object, which driver.cpp loads.
//
// Of the kernels of this program, whose names don't begin with "expr", it makes nothing: they are built into the stand-in driver.
// COMPILER, SHIM, DRIVER and FOLDER are the compiler, cuda_on_cpu.h, the stand-in driver and a folder for files.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <sstream>
#include <string>

namespace {
enum { SUCCESS, INVALID_INPUT = 3, COMPILATION = 6 };

struct Program {
  std::string text, name, log, image;
};

std::atomic<int> compilations;

std::string contents(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream all;
  all << file.rdbuf();
  return all.str();
}

int compile(Program &program) {
  if (program.name.rfind("expr", 0) != 0) {
    program.image = "built into the driver";
    return SUCCESS;
  }
  std::string base = std::string(FOLDER) + "/made-" + std::to_string(compilations++);
  std::ofstream(base + ".cpp", std::ios::binary) << "#line 1 \"" << program.name << "\"\n" << program.text;
  // What C++ leaves undefined ends the process with a trap. Products and sums are rounded one by one.
  std::string command = std::string(COMPILER) + " -std=c++17 -O1 -shared -fPIC -Wall -Wno-unknown-pragmas -Werror -ffp-contract=off -fno-gnu-unique" +
                        " -fsanitize=undefined -fsanitize-undefined-trap-on-error -fno-sanitize=vptr -include \"" + SHIM + "\" \"" + base +
                        ".cpp\" \"" + DRIVER + "\" -o \"" + base + ".so\" 2> \"" + base + ".log\"";
  int code = std::system(command.c_str());
  program.log = contents(base + ".log");
  program.image = contents(base + ".so");
  if (code == 0)
    for (const char *end : {".cpp", ".so", ".log"}) std::remove((base + end).c_str());
  return code == 0 ? SUCCESS : COMPILATION;
}
} // namespace

#define CALL(name, ...) extern "C" __attribute__((visibility("default"))) int name(__VA_ARGS__)

CALL(nvrtcVersion, int *major, int *minor) {
  *major = 0;
  *minor = 1;
  return SUCCESS;
}
CALL(nvrtcCreateProgram, Program **program, const char *text, const char *name, int headers, const char *const *, const char *const *) {
  if (headers) return INVALID_INPUT;
  *program = new Program{text, name, "", ""};
  return SUCCESS;
}
CALL(nvrtcDestroyProgram, Program **program) {
  delete *program;
  *program = nullptr;
  return SUCCESS;
}
// The emulator rounds products and sums one by one, whatever is asked for, so it must have been asked for.
CALL(nvrtcCompileProgram, Program *program, int count, const char *const *options) {
  for (int i = 0; i < count; i++)
    if (!strcmp(options[i], "--fmad=false")) return compile(*program);
  return INVALID_INPUT;
}
CALL(nvrtcGetProgramLogSize, Program *program, size_t *size) {
  *size = program->log.size() + 1;
  return SUCCESS;
}
CALL(nvrtcGetProgramLog, Program *program, char *log) {
  memcpy(log, program->log.c_str(), program->log.size() + 1);
  return SUCCESS;
}
CALL(nvrtcGetCUBINSize, Program *program, size_t *size) {
  *size = program->image.size();
  return SUCCESS;
}
CALL(nvrtcGetCUBIN, Program *program, char *image) {
  memcpy(image, program->image.data(), program->image.size());
  return SUCCESS;
}
CALL(nvrtcGetPTXSize, Program *, size_t *size) {
  *size = 0;
  return INVALID_INPUT;
}
CALL(nvrtcGetPTX, Program *, char *) { return INVALID_INPUT; }

// How many texts were compiled.
CALL(fake_compilations, ) { return compilations; }
