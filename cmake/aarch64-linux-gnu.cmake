# SPDX-License-Identifier: Apache-2.0
# Debian's cross compiler, and libraries that tools/aarch64 unpacked.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(TANDEM_SYSROOT ${CMAKE_CURRENT_LIST_DIR}/../build/aarch64-sysroot)
set(CMAKE_FIND_ROOT_PATH ${TANDEM_SYSROOT} /usr/aarch64-linux-gnu)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
include_directories(SYSTEM ${TANDEM_SYSROOT}/usr/include)
# Some libraries' .so in /usr/lib is a script that names one in /lib.
add_link_options(-L${TANDEM_SYSROOT}/lib/aarch64-linux-gnu
  -Wl,-rpath-link,${TANDEM_SYSROOT}/usr/lib/aarch64-linux-gnu:${TANDEM_SYSROOT}/lib/aarch64-linux-gnu)
