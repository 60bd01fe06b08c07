# The libraries that we link: LibTorch by hand (find_package(Torch) probes for a GPU and leaves bogus RUNPATHs),
# Debian's for the rest.

add_library(libtorch INTERFACE)
target_include_directories(libtorch INTERFACE "${CMAKE_SOURCE_DIR}")
target_include_directories(libtorch SYSTEM INTERFACE "${SITE}/torch/include" "${CUDA_ROOT}/include" "${SITE}/nvidia/nccl/include")
target_compile_definitions(libtorch INTERFACE USE_DISTRIBUTED USE_C10D_NCCL)  # fmt: core/fmt_library.cpp
foreach(_lib torch/lib/libtorch_cuda.so torch/lib/libtorch_cpu.so torch/lib/libc10_cuda.so torch/lib/libc10.so
        nvidia/cu13/lib/libcudart.so.13 nvidia/nccl/lib/libnccl.so.2)
  get_filename_component(_name "${_lib}" NAME_WE)
  add_library(wheel_${_name} SHARED IMPORTED)
  set_target_properties(wheel_${_name} PROPERTIES IMPORTED_LOCATION "${SITE}/${_lib}")
  target_link_libraries(libtorch INTERFACE wheel_${_name})
endforeach()
target_link_options(libtorch INTERFACE "LINKER:--no-as-needed")  # nothing else pulls in libtorch_cuda

find_package(PkgConfig REQUIRED)
pkg_check_modules(icu REQUIRED IMPORTED_TARGET icu-uc)
find_package(nlohmann_json 3 REQUIRED)
find_package(yaml-cpp REQUIRED)
find_package(CLI11 REQUIRED)
find_package(doctest REQUIRED)

set(ZLIB_USE_STATIC_LIBS ON)  # a picture's bytes are not to depend on the system's zlib
find_package(ZLIB REQUIRED)

find_path(LODEPNG_INCLUDE lodepng.h REQUIRED)
find_library(LODEPNG_LIBRARY lodepng REQUIRED)
add_library(lodepng INTERFACE)
target_include_directories(lodepng SYSTEM INTERFACE "${LODEPNG_INCLUDE}")
target_link_libraries(lodepng INTERFACE "${LODEPNG_LIBRARY}")
