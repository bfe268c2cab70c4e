# SPDX-License-Identifier: Apache-2.0
# Flags that every target of the project is built with.
set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_C_STANDARD 11)
set(CMAKE_POSITION_INDEPENDENT_CODE ON)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
# Target all_verify_interface_header_sets compiles every public header alone.
set(CMAKE_VERIFY_INTERFACE_HEADER_SETS ON)
if(NOT CMAKE_BUILD_TYPE)
  set(CMAKE_BUILD_TYPE RelWithDebInfo)
endif()

add_library(tandem_flags INTERFACE)
target_include_directories(tandem_flags INTERFACE $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>)
target_compile_options(tandem_flags INTERFACE -Wall -Wextra -Wconversion -Wshadow)
if(PROJECT_IS_TOP_LEVEL)
  target_compile_options(tandem_flags INTERFACE -Werror)
endif()
if(CMAKE_CXX_COMPILER_ID STREQUAL "Clang")
  target_compile_options(tandem_flags INTERFACE -Wthread-safety)
endif()
if(TANDEM_PLANTED_FAULTS)
  target_compile_definitions(tandem_flags INTERFACE TANDEM_PLANTED_FAULTS=1)
endif()
if(TANDEM_RCU_CHECK)
  target_compile_definitions(tandem_flags INTERFACE TANDEM_RCU_CHECK=1)
endif()
if(TANDEM_FUZZ)
  target_compile_options(tandem_flags INTERFACE -fsanitize=fuzzer-no-link)
endif()
if(TANDEM_SANITIZE)
  target_compile_options(tandem_flags INTERFACE
    -fsanitize=${TANDEM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
  target_link_options(tandem_flags INTERFACE -fsanitize=${TANDEM_SANITIZE})
endif()

# tandem_gtest: GoogleTest. In the sources of tests UBSan leaves out what it asks at each access through a pointer, a
# quarter of what they cost to compile: a null pointer ends the test anyhow, and AddressSanitizer knows the sizes. (Of an
# inline function that a test uses as well the linker keeps the test's copy.)
add_library(tandem_gtest INTERFACE)
target_link_libraries(tandem_gtest INTERFACE GTest::gtest)
if(TANDEM_SANITIZE MATCHES undefined)
  # What g++ says of uninitialized values is unreliable amid a sanitizer's code.
  target_compile_options(tandem_gtest INTERFACE -fno-sanitize=alignment,null,object-size,vptr
    $<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized>)
endif()
