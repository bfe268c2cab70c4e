# SPDX-License-Identifier: Apache-2.0
# What `cmake --install` ships: libtandem-wd.so and libtandem.so for applications, the static module
# libraries for authors of devices, their headers, a CMake package and pkg-config files.
include(CMakePackageConfigHelpers)
set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/tandem)
set(modules base trace rcu)
set(shared)
if(NOT TANDEM_RCU_ONLY)
  list(APPEND modules abi memory iommu pcie uacce)
  set(shared tandem_wd_shared tandem_shared tandem_tandem)
  target_compile_features(tandem_wd_shared INTERFACE cxx_std_20)
  set_target_properties(tandem_shared PROPERTIES INSTALL_RPATH "$ORIGIN")
endif()
list(TRANSFORM modules PREPEND tandem_ OUTPUT_VARIABLE module_targets)

foreach(module IN LISTS module_targets)
  get_target_property(type ${module} TYPE)
  if(type STREQUAL "INTERFACE_LIBRARY")
    target_compile_features(${module} INTERFACE cxx_std_20)
  else()
    target_compile_features(${module} PUBLIC cxx_std_20)
  endif()
endforeach()

install(TARGETS ${module_targets} ${shared}
  EXPORT tandemTargets
  LIBRARY DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT sdk
  ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR} COMPONENT sdk
  FILE_SET HEADERS DESTINATION ${CMAKE_INSTALL_INCLUDEDIR} COMPONENT sdk)
if(NOT TANDEM_RCU_ONLY)
  foreach(header coroutine.hpp detail/channel.hpp error.hpp kxo.hpp operations.hpp wd.h wd.hpp)
    cmake_path(GET header PARENT_PATH below)
    install(FILES tandem/wd/${header} DESTINATION ${CMAKE_INSTALL_INCLUDEDIR}/tandem/wd/${below} COMPONENT sdk)
  endforeach()
endif()
install(EXPORT tandemTargets NAMESPACE tandem:: DESTINATION ${package_dir} COMPONENT sdk)

file(WRITE ${PROJECT_BINARY_DIR}/tandemConfig.cmake [[
# tandem::tandem   client library and embedded devices: works with and without a broker
# tandem::wd       client library alone: needs a broker
# tandem::uacce    framework for authors of devices, a static library, and the ones it stands on:
# tandem::base, trace, abi, rcu, memory, iommu, pcie
# Of a build with TANDEM_RCU_ONLY: tandem::rcu, trace and base.
include(CMakeFindDependencyMacro)
find_dependency(Threads)
include(${CMAKE_CURRENT_LIST_DIR}/tandemTargets.cmake)
]])
write_basic_package_version_file(${PROJECT_BINARY_DIR}/tandemConfigVersion.cmake
  COMPATIBILITY SameMinorVersion)
install(FILES ${PROJECT_BINARY_DIR}/tandemConfig.cmake ${PROJECT_BINARY_DIR}/tandemConfigVersion.cmake
  DESTINATION ${package_dir} COMPONENT sdk)

# tandem_pkg_config(NAME DESCRIPTION REQUIRES LIBS); its prefix follows the file, so that a tree
# can be moved.
function(tandem_pkg_config name description requires libs)
  cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX
    BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig OUTPUT_VARIABLE up)
  file(WRITE ${PROJECT_BINARY_DIR}/${name}.pc
"prefix=\${pcfiledir}/${up}
libdir=\${prefix}/${CMAKE_INSTALL_LIBDIR}
includedir=\${prefix}/${CMAKE_INSTALL_INCLUDEDIR}

Name: ${name}
Description: ${description}
Version: ${PROJECT_VERSION}
Requires: ${requires}
Cflags: -I\${includedir}
Libs: -L\${libdir} ${libs}
")
  install(FILES ${PROJECT_BINARY_DIR}/${name}.pc
    DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig COMPONENT sdk)
endfunction()
tandem_pkg_config(tandem-rcu "RCU in user space" "" "-ltandem_rcu -ltandem_trace -ltandem_base -pthread")
if(TANDEM_RCU_ONLY)
  return()
endif()
tandem_pkg_config(tandem-wd "client library of Tandem accelerators" "" "-ltandem-wd")
tandem_pkg_config(tandem "Tandem client library with embedded devices" "tandem-wd"
  "-Wl,--push-state,--no-as-needed,-ltandem,--pop-state")

if(TARGET tandemd)
  install(TARGETS tandemd tandem_cli RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR} COMPONENT tools)
endif()
