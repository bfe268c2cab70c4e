# SPDX-License-Identifier: Apache-2.0

# tandem_module(NAME
#   SOURCES  a.cpp …        everything compiled into the module
#   PUBLIC   a.hpp …        public headers: installed, and compiled alone by the header check
#   DEPENDS  base rcu …     modules; the only ones its files may include (tools/layers checks it)
#   LINK     ZLIB::ZLIB …   libraries from the system
#   TESTS    a_test.cpp …   unit tests, one executable `<name>_test`, label `unit`
#   TEST_LINK …)            what only the tests link
#
# Makes the static library tandem_<name>, alias tandem::<name>.
function(tandem_module name)
  cmake_parse_arguments(M "" "" "SOURCES;PUBLIC;DEPENDS;LINK;TESTS;TEST_LINK" ${ARGN})
  set(target tandem_${name})
  list(TRANSFORM M_DEPENDS PREPEND tandem_ OUTPUT_VARIABLE libraries)
  if(M_SOURCES)
    add_library(${target} STATIC ${M_SOURCES})
    set(scope PUBLIC)
    target_link_libraries(${target} PRIVATE $<BUILD_INTERFACE:tandem_flags>)
    tandem_precompile(${target})
  else()
    add_library(${target} INTERFACE)
    set(scope INTERFACE)
  endif()
  add_library(tandem::${name} ALIAS ${target})
  set_target_properties(${target} PROPERTIES EXPORT_NAME ${name})
  target_include_directories(${target} ${scope}
    $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}> $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  target_link_libraries(${target} ${scope} ${libraries} ${M_LINK} Threads::Threads)
  set_property(GLOBAL APPEND PROPERTY TANDEM_MODULES ${name})
  if(M_PUBLIC)
    target_sources(${target} ${scope} FILE_SET HEADERS
      BASE_DIRS ${PROJECT_SOURCE_DIR} FILES ${M_PUBLIC})
  endif()
  if(TANDEM_TESTS AND M_TESTS)
    add_executable(${name}_test ${M_TESTS})
    target_link_libraries(${name}_test PRIVATE
      tandem_flags ${target} ${M_TEST_LINK} tandem_gtest GTest::gmock GTest::gtest_main)
    tandem_precompile(${name}_test TEST)
    tandem_add_test(${name} ${name}_test unit)
  endif()
endfunction()

# tandem_add_test(NAME TARGET LABEL [ARGS…]): one CTest entry that fails when no test ran.
function(tandem_add_test name target label)
  add_test(NAME ${name} COMMAND ${target} ${ARGN})
  set_tests_properties(${name} PROPERTIES LABELS ${label} TIMEOUT 900
    FAIL_REGULAR_EXPRESSION "Running 0 tests")
endfunction()
