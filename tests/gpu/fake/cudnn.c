// cuDNN: what must return more than success. make_environment.py generates the rest.

// Every attribute has one value, zero: one engine, one plan, no workspace.
int cudnnBackendGetAttribute(void* descriptor, int attribute, int type, long wanted, long* found, void* values) {
  const int descriptor_type = 15, int64_type = 3, double_type = 2;
  if (found) *found = 1;
  if (values && type == descriptor_type) return 0;
  if (values && (type == int64_type || type == double_type)) *(long*)values = 0;
  else if (values) *(int*)values = 0;
  return 0;
}
const char* cudnnGetErrorString(int status) { return "fake cuDNN"; }
unsigned long cudnnGetVersion(void) { return 92801; }
