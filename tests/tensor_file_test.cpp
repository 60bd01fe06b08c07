#include "core/tensor_file.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>

#include "core/error.h"
#include "core/file_format.h"
#include "core/safetensors.h"
#include "core/sha256.h"
#include "core/strings.h"
#include "core/weights.h"
#include "tests/tensor_writer.h"

using namespace mgpu;
using mgpu::test::Folder;
using mgpu::test::safetensors;

namespace {

/// What parsing this header says, less the file's name; "" when it is taken.
std::string fault(const std::string& json, std::uint64_t data_bytes) {
  try {
    parse_tensor_header(json, data_bytes, "m");
    return "";
  } catch (const Error& error) {
    CHECK(error.code() == Exit::Usage);
    CHECK(error.where().file == "m");
    return error.message();
  }
}

/// What opening a file of this content says, and its hint after " | ".
std::string open_fault(const std::string& content) {
  const Folder folder;
  const std::string path = folder.write("m.safetensors", content);
  try {
    TensorFile::open(path);
    return "";
  } catch (const Error& error) {
    CHECK(error.where().file == path);
    return error.hint().empty() ? error.message() : error.message() + " | " + error.hint();
  }
}

const std::string kOne = R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}})";

}  // namespace

TEST_SUITE_BEGIN("tensor_file");

TEST_CASE("types and their sizes") {
  const std::map<std::string, std::size_t> sizes{{"F64", 8},     {"F32", 4}, {"F16", 2}, {"BF16", 2}, {"F8_E4M3", 1},
                                                 {"F8_E5M2", 1}, {"I64", 8}, {"I32", 4}, {"I16", 2},  {"I8", 1},
                                                 {"U64", 8},     {"U32", 4}, {"U16", 2}, {"U8", 1},   {"BOOL", 1}};
  for (const auto& [name, size] : sizes) {
    REQUIRE(dtype_named(name).has_value());
    CHECK(name_of(*dtype_named(name)) == name);
    CHECK(size_of(*dtype_named(name)) == size);
  }
  CHECK_FALSE(dtype_named("f32"));
  CHECK_FALSE(dtype_named("F4"));
  CHECK_FALSE(dtype_named(""));
}

TEST_CASE("a type that we do not know is kept by its name, whatever its elements take") {
  const TensorHeader header = parse_tensor_header(
      R"({"a":{"dtype":"F4","shape":[2,8],"data_offsets":[0,8]},"b":{"dtype":"F32","shape":[],"data_offsets":[8,12]}})",
      12, "m");
  const TensorInfo& info = header.tensors.at("a");
  CHECK((info.dtype == DType::Other));
  CHECK(info.type_name() == "F4");
  CHECK(info.bytes() == 8);
  CHECK(header.tensors.at("b").type_name() == "F32");
  const Folder folder;
  const auto file = TensorFile::open(folder.write("m.safetensors", safetensors({{"a", DType::Other, {8}}})));
  CHECK_THROWS_WITH_AS(mapped_tensor(file, *file->find("a")),
                       doctest::Contains("holds a tensor of type \"another type\", which is not supported"), Error);
}

TEST_CASE("a file gives names, shapes, bytes, metadata and its header's hash") {
  const Folder folder;
  const std::string content = safetensors({{"b", DType::F32, {2, 1}, test::bytes_of<float>({1.5f, -2.0f})},
                                           {"a.scalar", DType::I64, {}, test::bytes_of<std::int64_t>({-7})},
                                           {"empty", DType::BF16, {0, 3}},
                                           {"z", DType::U8, {3}, "xyz"}},
                                          R"({"format":"pt","note":"é\n"})");
  const auto file = TensorFile::open(folder.write("m.safetensors", content));
  CHECK(file->path() == folder.path("m.safetensors"));
  CHECK(file->file_bytes() == content.size());
  CHECK(file->tensors().size() == 4);
  CHECK(file->metadata().at("note") == "é\n");

  const TensorInfo* b = file->find("b");
  REQUIRE(b);
  CHECK(b->dtype == DType::F32);
  CHECK(b->shape == std::vector<std::int64_t>{2, 1});
  CHECK(b->count() == 2);
  float values[2];
  REQUIRE(file->bytes(*b).size() == sizeof values);
  std::memcpy(values, file->bytes(*b).data(), sizeof values);
  CHECK(values[0] == 1.5f);
  CHECK(values[1] == -2.0f);

  CHECK(file->find("a.scalar")->count() == 1);
  CHECK(file->find("a.scalar")->bytes() == 8);
  CHECK(file->find("empty")->count() == 0);
  CHECK(file->bytes(*file->find("empty")).empty());
  CHECK(std::memcmp(file->bytes(*file->find("z")).data(), "xyz", 3) == 0);
  CHECK(file->find("B") == nullptr);
  for (const auto& [name, info] : file->tensors()) file->prefetch(info);

  std::uint64_t header = 0;
  std::memcpy(&header, content.data(), 8);
  CHECK(file->header_sha256() == sha256_hex(content.substr(8, header)));
}

TEST_CASE("a file without tensors is a file") {
  CHECK(open_fault(safetensors("{}", "")) == "");
  CHECK(open_fault(safetensors("{\"__metadata__\":{}}  ", "")) == "");
  CHECK(fault("{\"__metadata__\":null}", 0) == "");
}

TEST_CASE("a replaced file stays as it was") {
  const Folder folder;
  const std::string path = folder.write("m", safetensors(std::vector<test::Entry>{{"a", DType::U8, {1}, "1"}}));
  const auto file = TensorFile::open(path);
  std::filesystem::rename(folder.write("n", "gone"), path);
  CHECK(static_cast<char>(file->bytes(*file->find("a"))[0]) == '1');
}

TEST_CASE("what is wrong with the file itself") {
  const std::string good = safetensors(kOne, std::string(8, 'x'));
  CHECK(open_fault(good) == "");
  CHECK(open_fault("") == "is empty | fetch it again");
  CHECK(open_fault(good.substr(0, 40)) == "is cut short: its header takes 62 bytes, the file has 40 | fetch it again");
  CHECK(open_fault(good.substr(0, good.size() - 1)) ==
        "tensor \"a\" ends at byte 8 of the data, but the file has only 7 | the file is cut short: fetch it again");
  CHECK(open_fault(good + "x") == "has 9 bytes of data, but its tensors take 8");
  std::string huge = good;
  huge[4] = 1;
  CHECK(open_fault(huge) ==
        "has a header of 4294967350 bytes, more than the 100000000 that are allowed | the file is damaged: fetch it "
        "again");
  std::string just_over(8, '\0');
  const std::uint64_t over = 100'000'001, limit = 100'000'000;
  std::memcpy(just_over.data(), &over, 8);
  CHECK(open_fault(just_over + "{").starts_with("has a header of 100000001 bytes, more than the 100000000"));
  std::memcpy(just_over.data(), &limit, 8);
  CHECK(open_fault(just_over + "{").starts_with("is cut short: its header takes 100000008 bytes, the file has 9"));
  std::string endless(8, '\xff');
  CHECK(open_fault(endless + "{").starts_with("has a header of 18446744073709551615 bytes"));

  const Folder folder;
  CHECK_THROWS_WITH_AS(TensorFile::open(folder.path("no")), (folder.path("no") + ": does not exist").c_str(), Error);
  CHECK_THROWS_WITH_AS(TensorFile::open(folder.path("")), (folder.path("") + ": is a directory, not a file").c_str(),
                       Error);
  folder.write("model_index.json", "{}");
  CHECK_THROWS_WITH_AS(
      TensorFile::open(folder.path("")),
      doctest::Contains("is a diffusers folder, which is not supported yet\n  use the model's single-file release"),
      Error);
  REQUIRE(::mkfifo(folder.path("pipe").c_str(), 0600) == 0);
  CHECK_THROWS_WITH_AS(TensorFile::open(folder.path("pipe")), doctest::Contains("pipe: is not a regular file"), Error);
  if (::geteuid() != 0) {
    ::chmod(folder.write("secret", good).c_str(), 0);
    CHECK_THROWS_WITH_AS(TensorFile::open(folder.path("secret")),
                         doctest::Contains("cannot be opened: Permission denied"), Error);
  }
}

TEST_CASE("other formats are named for what they are") {
  const auto what = [](std::string_view head) { return open_fault(std::string(head)); };
  const std::string pickle =
      "is a pickled checkpoint, which can run code when it is loaded | convert it to safetensors first";
  CHECK(what(std::string_view("GGUF\x03\0\0\0\x10\0\0\0", 12)) ==
        "is a GGUF file, which is not supported yet | use the model's safetensors release");
  CHECK(what(std::string_view("PK\x03\x04\0\0\x08\x08\0\0\0\0", 12)).starts_with(pickle));
  CHECK(what("\x80\x02\x8a\x0al\xfc\x9c\x46\xf9 j\xa8P\x19.").starts_with(pickle));
  CHECK(what("version https://git-lfs.github.com/spec/v1\noid sha256:00\n") ==
        "is a git-lfs pointer, not the weights | fetch the weights with git lfs pull");
  CHECK(what("\n<!DOCTYPE html><html>")
            .starts_with("is a web page, not weights | the download did not give the file itself"));
  CHECK(what("<HTML><head>").starts_with("is a web page, not weights"));
  CHECK(what("{\"weight_map\": {}}").starts_with("is a JSON text, not weights | name the .safetensors file"));
  CHECK(what("{\"a\" : {\"b\": 1}}").starts_with("is a JSON text, not weights"));  // a brace where the format has one
  CHECK(what("0123456789").starts_with("is not a safetensors file | checkpoints, encoders and autoencoders"));
  CHECK(what("abc").starts_with("is not a safetensors file"));
  // A header of 640 bytes begins as a pickle does.
  std::string json = "{}";
  json.append(640 - json.size(), ' ');
  CHECK(what(safetensors(json, "")) == "");
}

TEST_CASE("bad headers") {
  CHECK(fault(kOne, 8) == "");
  CHECK(fault("", 0) == "is not a safetensors file: its header does not begin with \"{\"");
  CHECK(fault(" {}", 0) == "is not a safetensors file: its header does not begin with \"{\"");
  CHECK(fault("{", 0) == "has a header that is not valid JSON, at byte 2 of it");
  CHECK(fault("{} x", 0) == "has a header that is not valid JSON, at byte 4 of it");
  CHECK(fault("{\"a\":{\"dtype\":\"F32\",}}", 0) ==
        "tensor \"a\" has a header that is not valid JSON, at byte 21 of it");
  CHECK(fault("{\"a\xff\":1}", 0) == "has a header that is not valid JSON, at byte 4 of it");
  CHECK(fault(R"({"a":[1]})", 0) == "tensor \"a\" is a list, not an object");
  CHECK(fault(R"({"a":null})", 0) == "tensor \"a\" is null, not an object");
  std::string nested = "{\"a\":";
  nested.append(100'000, '[');
  CHECK(fault(nested, 0) == "tensor \"a\" is a list, not an object");
  CHECK(fault(R"({"__metadata__":[]})", 0) == "has a list as \"__metadata__\", not an object");
  CHECK(fault(R"({"__metadata__":{"k":1}})", 0) == "has a number in \"__metadata__\" under \"k\", not a string");
  CHECK(fault(R"({"__metadata__":{"k":null}})", 0) == "has null in \"__metadata__\" under \"k\", not a string");
  CHECK(fault(R"({"__metadata__":{"k":"1","k":"2"}})", 0) == "names \"k\" twice");
  CHECK(fault(R"({"__metadata__":{},"__metadata__":{}})", 0) == "names \"__metadata__\" twice");
}

TEST_CASE("bad tensors are named") {
  const auto entry = [](const std::string& fields, std::uint64_t bytes = 8) {
    return fault("{\"a\":{" + fields + "}}", bytes);
  };
  CHECK(entry(R"("shape":[2],"data_offsets":[0,8])") == "tensor \"a\" lacks \"dtype\"");
  CHECK(entry(R"("dtype":"F32","data_offsets":[0,8])") == "tensor \"a\" lacks \"shape\"");
  CHECK(entry(R"("dtype":"F32","shape":[2])") == "tensor \"a\" lacks \"data_offsets\"");
  CHECK(entry(R"("dtype":"F32","dtype":"F32")") == "tensor \"a\" names \"dtype\" twice");
  CHECK(entry(R"("dtype":"F32","extra":1)") == "tensor \"a\" has an unknown field \"extra\"");
  CHECK(entry(R"("dtype":32)") == "tensor \"a\" has a number in \"dtype\"");
  CHECK(entry(R"("dtype":{"shape":[2]})") == "tensor \"a\" has an object in \"dtype\"");
  CHECK(entry(R"("shape":"2")") == "tensor \"a\" has a string in \"shape\"");
  CHECK(entry(R"("shape":[-1])") == "tensor \"a\" has a negative number in \"shape\"");
  CHECK(entry(R"("shape":[2.0])") == "tensor \"a\" has a number that is not a whole 64-bit one in \"shape\"");
  CHECK(entry(R"("shape":[1e3])") == "tensor \"a\" has a number that is not a whole 64-bit one in \"shape\"");
  CHECK(entry(R"("shape":[18446744073709551616])") ==
        "tensor \"a\" has a number that is not a whole 64-bit one in \"shape\"");
  CHECK(entry(R"("shape":[18446744073709551615])") == "tensor \"a\" has a dimension that is too large");
  CHECK(entry(R"("shape":[[2]])") == "tensor \"a\" has a list in \"shape\"");
  CHECK(entry(R"("shape":[1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1])") ==
        "tensor \"a\" has more than 16 numbers in \"shape\"");
  CHECK(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0])") ==
        "tensor \"a\" needs two numbers in \"data_offsets\"");
  CHECK(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,4,8])") ==
        "tensor \"a\" needs two numbers in \"data_offsets\"");
  CHECK(entry(R"("dtype":"F32","shape":[2],"data_offsets":[8,0])") ==
        "tensor \"a\" ends at byte 0 before it begins at 8");
  CHECK(entry(R"("dtype":"F32","shape":[2],"data_offsets":[0,8])", 7) ==
        "tensor \"a\" ends at byte 8 of the data, but the file has only 7");
  CHECK(entry(R"("dtype":"F32","shape":[3],"data_offsets":[0,8])") ==
        "tensor \"a\" has 8 bytes, but shape [3] in F32 takes 12");
  CHECK(entry(R"("dtype":"F32","shape":[],"data_offsets":[0,8])") ==
        "tensor \"a\" has 8 bytes, but shape [] in F32 takes 4");
  CHECK(entry(R"("dtype":"F32","shape":[0],"data_offsets":[0,8])") ==
        "tensor \"a\" has 8 bytes, but shape [0] in F32 takes 0");
  const std::string vast = "tensor \"a\" of shape [4294967296, 4294967296] is larger than any file";
  CHECK(entry(R"("dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,0])", 0) == vast);
  CHECK(entry(R"("dtype":"F64","shape":[1152921504606846976],"data_offsets":[0,0])", 0) ==
        "tensor \"a\" of shape [1152921504606846976] is larger than any file");
  // No bytes, but strides that would overflow.
  CHECK(entry(R"("dtype":"U8","shape":[0,4294967296,4294967296],"data_offsets":[0,0])", 0) ==
        "tensor \"a\" of shape [0, 4294967296, 4294967296] is larger than any file");
}

TEST_CASE("names in errors are escaped and cut") {
  CHECK(fault("{\"\\u001b[2J\\u0000\":1}", 0) == "tensor \"\\x1b[2J\\x00\" is a number, not an object");
  CHECK(fault("{\"" + std::string(1000, 'n') + "\":1}", 0) ==
        "tensor \"" + std::string(200, 'n') + "...\" is a number, not an object");
}

TEST_CASE("tensors cover the data once") {
  const auto two = [](const std::string& a, const std::string& b, std::uint64_t bytes) {
    return fault(R"({"a":{"dtype":"U8","shape":[4],"data_offsets":)" + a +
                     R"(},"b":{"dtype":"U8","shape":[4],"data_offsets":)" + b + "}}",
                 bytes);
  };
  CHECK(two("[0,4]", "[4,8]", 8) == "");
  CHECK(two("[4,8]", "[0,4]", 8) == "");
  CHECK(two("[0,4]", "[3,7]", 7) == "tensor \"b\" overlaps tensor \"a\" at byte 3 of the data");
  CHECK(two("[0,4]", "[0,4]", 4) == "tensor \"b\" overlaps tensor \"a\" at byte 0 of the data");
  CHECK(two("[0,4]", "[5,9]", 9) == "tensor \"b\" begins at byte 5 of the data, which leaves a hole after byte 4");
  CHECK(two("[1,5]", "[5,9]", 9) == "tensor \"a\" begins at byte 1 of the data, which leaves a hole after byte 0");
  CHECK(two("[0,4]", "[4,8]", 9) == "has 9 bytes of data, but its tensors take 8");
  CHECK(
      fault(
          R"({"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},"a":{"dtype":"U8","shape":[1],"data_offsets":[1,2]}})",
          2) == "tensor \"a\" is there twice");
  // An empty tensor may lie at a border, not inside another.
  const auto empty_at = [](const std::string& at) {
    return fault(
        R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},"e":{"dtype":"U8","shape":[0],"data_offsets":[)" + at +
            "," + at + "]}}",
        4);
  };
  CHECK(empty_at("0") == "");
  CHECK(empty_at("4") == "");
  CHECK(empty_at("2") == "tensor \"e\" overlaps tensor \"a\" at byte 2 of the data");
}

TEST_CASE("near names") {
  const std::vector<std::string_view> names{"img_in.weight", "txt_in.weight", "img_in.bias"};
  CHECK(nearest("img_in.wieght", names) == "img_in.weight");
  CHECK(nearest("txt_in.weigh", names) == "txt_in.weight");
  CHECK(nearest("img_in.we", names) == "");  // four of nine are missing
  CHECK(nearest("img_in.weig", names) == "img_in.weight");
  CHECK(nearest("completely other", names) == "");
  CHECK(nearest("x", std::vector<std::string_view>{}) == "");
}

TEST_CASE("sizes for people") {
  CHECK(bytes_text(1) == "1 byte");
  CHECK(bytes_text(1023) == "1023 bytes");
  CHECK(bytes_text(1024) == "1.0 KB");
  CHECK(bytes_text(335'304'388) == "320 MB");
  CHECK(bytes_text(23'802'932'552) == "22.2 GB");
}

TEST_SUITE_END();
