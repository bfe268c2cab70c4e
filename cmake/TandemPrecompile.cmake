# SPDX-License-Identifier: Apache-2.0
# Precompiled headers: half of what a file costs is the standard library's, and GoogleTest's or {fmt}'s.
#
# tandem_precompile(TARGET [TEST|FMT]) lets a target begin with what every file of its kind includes. A file
# still includes what it uses: preset clang, whose CMAKE_DISABLE_PRECOMPILE_HEADERS is set, finds what it forgot.
#
# Compiled once for all targets of a kind. Libraries and programs differ: g++ rejects what was compiled with
# -fPIC where -fPIE is asked for. With ccache there are none: it would compile everything again in each directory.
set(TANDEM_STANDARD_HEADERS <algorithm> <array> <atomic> <bit> <chrono> <cstdint> <functional> <map> <memory> <mutex>
  <optional> <random> <span> <string> <system_error> <thread> <unordered_map> <utility> <vector>)
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/precompile/library.cpp CONTENT "")
file(CONFIGURE OUTPUT ${PROJECT_BINARY_DIR}/precompile/program.cpp CONTENT "int main() {}\n")

function(tandem_precompile target)
  if(CMAKE_DISABLE_PRECOMPILE_HEADERS OR CMAKE_CXX_COMPILER_LAUNCHER)
    return()
  endif()
  get_target_property(type ${target} TYPE)
  if(type STREQUAL "EXECUTABLE")
    set(source program)
  else()
    set(source library)
  endif()
  set(owner tandem_precompile_${source}_${ARGV1})
  if(NOT TARGET ${owner})
    if(source STREQUAL "program")
      add_executable(${owner} EXCLUDE_FROM_ALL ${PROJECT_BINARY_DIR}/precompile/program.cpp)
    else()
      add_library(${owner} OBJECT EXCLUDE_FROM_ALL ${PROJECT_BINARY_DIR}/precompile/library.cpp)
    endif()
    target_link_libraries(${owner} PRIVATE tandem_flags Threads::Threads)
    set(headers ${TANDEM_STANDARD_HEADERS})
    if(ARGV1 STREQUAL "TEST")
      list(APPEND headers <gtest/gtest.h>)
      target_link_libraries(${owner} PRIVATE tandem_gtest)
    elseif(ARGV1 STREQUAL "FMT")
      list(APPEND headers <fmt/format.h>)
      target_link_libraries(${owner} PRIVATE fmt::fmt)
    endif()
    target_precompile_headers(${owner} PRIVATE ${headers})
  endif()
  target_precompile_headers(${target} REUSE_FROM ${owner})
  # Where its own strings come from a precompiled header, g++ 12 warns of what they do inside.
  target_compile_options(${target} PRIVATE -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow
    -Wno-stringop-overread)
endfunction()
