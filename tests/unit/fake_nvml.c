/* The functions of NVML that are used, for three GPUs, of which the third is split into MIG instances.
   FAKE_NVML_REFUSES lists functions that answer NVML_ERROR_NOT_SUPPORTED, FAKE_NVML_INIT is what initialising returns,
   FAKE_NVML_CALLS is after how many calls of the power counter the GPU is lost. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct { const char *uuid; const char *name; struct Board *parent; } Device;
struct Board { Device device; };
static struct Board boards[3] = {
    {{"GPU-11111111-2222-3333-4444-555555555555", "Fake One", 0}},
    {{"GPU-11aaaaaa-2222-3333-4444-555555555555", "Fake Two", 0}},
    {{"GPU-99999999-2222-3333-4444-555555555555", "Fake Three", 0}},
};
static Device slice = {"MIG-77777777-2222-3333-4444-555555555555", "Fake Three MIG 1g.10gb", &boards[2]};
static int balance = 0, polls = 0;

enum { OK = 0, INVALID = 2, NOT_SUPPORTED = 3, NOT_FOUND = 6, LOST = 15 };

static int refuses(const char *function) {
    const char *listed = getenv("FAKE_NVML_REFUSES");
    return listed && strstr(listed, function) ? NOT_SUPPORTED : OK;
}
#define ASK(function) do { int status = refuses(function); if (balance < 1) return 1; if (status) return status; } while (0)

int fake_balance(void) { return balance; }
int nvmlInitWithFlags(unsigned flags) {
    const char *status = getenv("FAKE_NVML_INIT");
    if (status) return atoi(status);
    balance++;
    return OK;
}
int nvmlShutdown(void) { if (balance < 1) return 1; balance--; return OK; }
const char *nvmlErrorString(int status) { return status == 9 ? "Driver Not Loaded" : "Fake Error"; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { ASK("Driver"); snprintf(text, size, "999.10"); return OK; }
int nvmlDeviceGetCount_v2(unsigned *count) { ASK("Count"); *count = 3; return OK; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **handle) {
    ASK("HandleByIndex");
    if (index > 2) return INVALID;
    *handle = &boards[index];
    return OK;
}
int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle) {
    ASK("HandleByUUID");
    for (int i = 0; i < 3; i++)
        if (!strcmp(uuid, boards[i].device.uuid)) { *handle = &boards[i]; return OK; }
    if (!strcmp(uuid, slice.uuid)) { *handle = &slice; return OK; }
    return NOT_FOUND;
}
int nvmlDeviceGetUUID(Device *device, char *text, unsigned size) { ASK("GetUUID"); snprintf(text, size, "%s", device->uuid); return OK; }
int nvmlDeviceGetName(Device *device, char *text, unsigned size) { ASK("Name"); snprintf(text, size, "%s", device->name); return OK; }
int nvmlDeviceIsMigDeviceHandle(Device *device, unsigned *is) { ASK("IsMig"); *is = device->parent != 0; return OK; }
int nvmlDeviceGetDeviceHandleFromMigDeviceHandle(Device *device, void **handle) { ASK("FromMig"); *handle = device->parent; return OK; }
int nvmlDeviceGetUtilizationRates(Device *device, unsigned *rates) {
    ASK("Utilization");
    if (device->parent) return NOT_SUPPORTED;
    rates[0] = 37; rates[1] = 5;
    return OK;
}
int nvmlDeviceGetMemoryInfo(Device *device, unsigned long long *bytes) {
    ASK("MemoryInfo");
    bytes[0] = device->parent ? 10000 : 80000; bytes[1] = bytes[0] / 4; bytes[2] = bytes[0] - bytes[1];
    return OK;
}
int nvmlDeviceGetPowerUsage(Device *device, unsigned *milliwatts) {
    const char *calls = getenv("FAKE_NVML_CALLS");
    ASK("PowerUsage");
    if (device->parent) return NOT_SUPPORTED;
    if (calls && ++polls > atoi(calls)) return LOST;
    *milliwatts = 123400;
    return OK;
}
int nvmlDeviceGetTotalEnergyConsumption(Device *device, unsigned long long *millijoules) {
    static unsigned long long total = 5000000;
    ASK("Energy");
    if (device->parent) return NOT_SUPPORTED;
    *millijoules = total += 2000;
    return OK;
}
int nvmlDeviceGetEnforcedPowerLimit(Device *device, unsigned *milliwatts) { ASK("PowerLimit"); *milliwatts = 700000; return device->parent ? NOT_SUPPORTED : OK; }
int nvmlDeviceGetClockInfo(Device *device, int type, unsigned *mhz) { ASK("ClockInfo"); *mhz = type == 1 ? 1980 : type == 2 ? 2619 : 0; return device->parent ? NOT_SUPPORTED : OK; }
int nvmlDeviceGetTemperature(Device *device, int sensor, unsigned *celsius) { ASK("Temperature"); *celsius = 41; return device->parent ? NOT_SUPPORTED : OK; }
int nvmlDeviceGetCurrentClocksThrottleReasons(Device *device, unsigned long long *reasons) { ASK("Throttle"); *reasons = 0x4 | 0x1; return device->parent ? NOT_SUPPORTED : OK; }
