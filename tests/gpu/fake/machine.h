// The GPUs that are pretended: read once from the environment, as a driver reads CUDA_VISIBLE_DEVICES.
#pragma once
#include <cstdlib>
#include <sstream>
#include <string>
#include <vector>

namespace fake {

struct Gpu {
  int sm;              // compute capability, 90 for 9.0
  size_t memory;       // bytes
  std::string name;
};

inline std::vector<int> numbers(const char* variable, const char* otherwise) {
  const char* text = std::getenv(variable);
  std::istringstream parts(text ? text : otherwise);
  std::vector<int> found;
  for (std::string part; std::getline(parts, part, ',');)
    if (!part.empty()) found.push_back(std::atoi(part.c_str()));
  return found;
}

inline std::vector<Gpu> read_gpus() {
  std::vector<Gpu> all;
  for (int sm : numbers("FAKE_CUDA_SM", "90")) {
    size_t gib = 80 - 8 * all.size();  // different, so that tests can tell them apart
    all.push_back({sm, gib << 30, "Fake GPU " + std::to_string(all.size())});
  }
  if (!std::getenv("CUDA_VISIBLE_DEVICES")) return all;
  std::vector<Gpu> visible;
  for (int index : numbers("CUDA_VISIBLE_DEVICES", "")) {
    if (index < 0 || index >= static_cast<int>(all.size())) break;  // as the driver does: nothing behind a wrong one
    visible.push_back(all[index]);
  }
  return visible;
}

inline const std::vector<Gpu>& gpus() {
  static const std::vector<Gpu> found = read_gpus();
  return found;
}

inline int driver_version() { return numbers("FAKE_CUDA_DRIVER", "13000").at(0); }

}  // namespace fake
