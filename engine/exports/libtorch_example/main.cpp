// Loads model.pt, calls it as example.pt says, and compares what it gives with what example.pt
// expects. Prints the largest difference; ends with status 1 where it is above the tolerance.
//
//   ./example [folder with model.pt and example.pt]
#include <torch/script.h>

#include <algorithm>
#include <iostream>
#include <limits>
#include <string>
#include <vector>

namespace {

constexpr double kUnlike = std::numeric_limits<double>::infinity();

// Largest difference over the largest expected value; infinite where tensors do not compare.
double difference(const at::Tensor& expected, const at::Tensor& found) {
  if (expected.sizes() != found.sizes() || expected.scalar_type() != found.scalar_type()) {
    return kUnlike;
  }
  if (expected.numel() == 0 || expected.equal(found)) {
    return 0.0;
  }
  const bool real = expected.is_floating_point();
  if (!real && !expected.is_complex()) {
    return kUnlike;  // integers are equal or wrong
  }
  const auto type = real ? at::kDouble : at::kComplexDouble;
  const at::Tensor wanted = expected.to(type), given = found.to(type);
  const at::Tensor finite = wanted.isfinite();
  if (!finite.equal(given.isfinite())) {
    return kUnlike;
  }
  const at::Tensor values = wanted.masked_select(finite);
  if (values.numel() == 0) {
    return 0.0;
  }
  const double scale = values.abs().max().item<double>();
  const double apart = (given.masked_select(finite) - values).abs().max().item<double>();
  return scale > 0.0 ? apart / scale : (apart > 0.0 ? kUnlike : 0.0);
}

double difference(const c10::IValue& expected, const c10::IValue& found);

template <typename Items, typename Others>
double largest(const Items& expected, const Others& found) {
  if (expected.size() != found.size()) {
    return kUnlike;
  }
  double worst = 0.0;
  for (size_t i = 0; i < expected.size(); ++i) {
    worst = std::max(worst, difference(expected[i], found[i]));
  }
  return worst;
}

// Tensors in tuples, lists and dictionaries, however deep.
double difference(const c10::IValue& expected, const c10::IValue& found) {
  if (expected.isTensor() && found.isTensor()) {
    return difference(expected.toTensor(), found.toTensor());
  }
  if (expected.isTuple() && found.isTuple()) {
    return largest(expected.toTupleRef().elements(), found.toTupleRef().elements());
  }
  if (expected.isList() && found.isList()) {
    return largest(expected.toListRef(), found.toListRef());
  }
  if (expected.isGenericDict() && found.isGenericDict()) {
    const auto wanted = expected.toGenericDict(), given = found.toGenericDict();
    if (wanted.size() != given.size()) {
      return kUnlike;
    }
    double worst = 0.0;
    for (const auto& entry : wanted) {
      const auto match = given.find(entry.key());
      if (match == given.end()) {
        return kUnlike;
      }
      worst = std::max(worst, difference(entry.value(), match->value()));
    }
    return worst;
  }
  if (expected.isDouble() && found.isDouble()) {
    return difference(at::scalar_tensor(expected.toDouble(), at::kDouble),
                      at::scalar_tensor(found.toDouble(), at::kDouble));
  }
  return expected == found ? 0.0 : kUnlike;
}

}  // namespace

int main(int argc, char** argv) {
  const std::string folder = argc > 1 ? argv[1] : ".";
  torch::InferenceMode inference;
  torch::jit::Module model = torch::jit::load(folder + "/model.pt");
  model.eval();
  // A module that computes nothing: its attributes are the arguments and the expected results.
  const torch::jit::Module example = torch::jit::load(folder + "/example.pt");
  const int64_t calls = example.attr("calls").toInt();
  const int64_t arguments = example.attr("arguments").toInt();

  double worst = 0.0;
  for (int64_t call = 0; call < calls; ++call) {
    const std::string suffix = "_" + std::to_string(call);
    std::vector<torch::jit::IValue> inputs;
    for (int64_t i = 0; i < arguments; ++i) {
      inputs.push_back(example.attr("input_" + std::to_string(i) + suffix));
    }
    torch::manual_seed(0);
    const torch::jit::IValue output = model.forward(inputs);
    worst = std::max(worst, difference(example.attr("expected" + suffix), output));
  }
  const double tolerance = example.attr("tolerance").toDouble();
  std::cout << calls << " calls, largest difference relative to the largest output: " << worst
            << " (may be " << tolerance << ")\n";
  return worst <= tolerance ? 0 : 1;
}
