package sysprobe

import (
	"path"
	"strconv"
	"strings"
)

// usableCPUs is the smallest number that affinity, cpusets and quotas allow.
func usableCPUs(t tree, g cgroups) int {
	var allowed []int
	if list, ok := t.field("/proc/self/status", "Cpus_allowed_list"); ok {
		allowed = append(allowed, countList(list))
	}
	allowed = append(allowed, countList(t.text("/sys/devices/system/cpu/online")))
	for _, dir := range g.cpuset.upwards() {
		for _, name := range []string{"cpuset.cpus.effective", "cpuset.effective_cpus", "cpuset.cpus"} {
			allowed = append(allowed, countList(t.text(path.Join(dir, name))))
		}
	}
	for _, dir := range g.cpu.upwards() {
		allowed = append(allowed, quotaCPUs(t, dir))
	}
	return smallest(allowed)
}

// smallest is the smallest positive number, and 1 where there is none.
func smallest(numbers []int) int {
	least := 0
	for _, n := range numbers {
		if n > 0 && (least == 0 || n < least) {
			least = n
		}
	}
	return max(least, 1)
}

// quotaCPUs is a cgroup's processor quota, rounded up: cpu.max in v2, a pair of
// files in v1. 0 where it has none.
func quotaCPUs(t tree, dir string) int {
	quota, period, _ := strings.Cut(t.text(path.Join(dir, "cpu.max")), " ")
	if quota == "" {
		quota = t.text(path.Join(dir, "cpu.cfs_quota_us"))
		period = t.text(path.Join(dir, "cpu.cfs_period_us"))
	}
	q, err := strconv.Atoi(quota)
	if err != nil || q <= 0 { // "max" in v2, -1 in v1
		return 0
	}
	p, err := strconv.Atoi(period)
	if err != nil || p <= 0 {
		return 0
	}
	return (q + p - 1) / p
}

// countList counts the members of a kernel list such as "0-3,8". 0 where it is
// empty or malformed.
func countList(list string) int {
	count := 0
	for part := range strings.SplitSeq(list, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first, err := strconv.Atoi(from)
		if err != nil {
			return 0
		}
		last := first
		if isRange {
			if last, err = strconv.Atoi(to); err != nil || last < first {
				return 0
			}
		}
		count += last - first + 1
	}
	return count
}

// cpuModel is the first processor's name. Some architectures have none.
func cpuModel(t tree) string {
	name, _ := t.field("/proc/cpuinfo", "model name")
	return name
}
