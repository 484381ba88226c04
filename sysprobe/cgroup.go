package sysprobe

import (
	"path"
	"slices"
	"strconv"
	"strings"
)

// unlimited is where a v1 limit stops meaning anything: an unset one reads as
// the largest page counter, 9223372036854771712 with pages of 4 kB.
const unlimited = 1 << 60

// group is this process's cgroup in one hierarchy: the folder, and the mount
// point that is as far up as can be seen. The zero group is none.
type group struct{ dir, top string }

// upwards lists the group's folder and those above it, up to the mount point.
func (g group) upwards() []string {
	if g.dir == "" {
		return nil
	}
	dirs := []string{g.dir}
	for dir := g.dir; dir != g.top; {
		dir = path.Dir(dir)
		dirs = append(dirs, dir)
	}
	return dirs
}

// cgroups is where this process is accounted. Each controller lives in one
// hierarchy, its own in v1 or the common one in v2; on hybrid hosts some live
// here and some there.
type cgroups struct{ memoryV1, memoryV2, cpu, cpuset group }

// readCgroups finds the process's groups in /proc/self/cgroup (see cgroups(7)).
func readCgroups(t tree, mounts []mount) cgroups {
	var g cgroups
	var unified group
	v1 := map[string]group{}
	for line := range strings.Lines(t.text("/proc/self/cgroup")) {
		parts := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(parts) != 3 {
			continue
		}
		if parts[1] == "" {
			unified = locate(mounts, "", parts[2])
			continue
		}
		for controller := range strings.SplitSeq(parts[1], ",") {
			v1[controller] = locate(mounts, controller, parts[2])
		}
	}
	g.memoryV1, g.memoryV2 = v1["memory"], unified
	g.cpu, g.cpuset = unified, unified
	if own, ok := v1["cpu"]; ok {
		g.cpu = own
	}
	if own, ok := v1["cpuset"]; ok {
		g.cpuset = own
	}
	return g
}

// locate returns the folder of a cgroup path in the hierarchy of a v1
// controller, or in the unified one when controller is empty. A path that the
// mount does not show (a container that sees its own group as the mount's
// root, or a group beside the namespace's) is the mount point itself.
func locate(mounts []mount, controller, cgroupPath string) group {
	for _, m := range mounts {
		if controller == "" && m.fstype != "cgroup2" {
			continue
		}
		if controller != "" && (m.fstype != "cgroup" || !slices.Contains(m.superOptions, controller)) {
			continue
		}
		below, ok := relative(m.root, path.Clean(cgroupPath))
		if !ok {
			below = ""
		}
		return group{dir: path.Join(m.mountpoint, below), top: m.mountpoint}
	}
	return group{}
}

// memory returns the smallest limit on the way up, 0 for none, and the usage
// of the group that has it.
func (g cgroups) memory(t tree) (limit, usage int64) {
	candidates := g.memoryV2.upwards()
	read := memoryV2
	if g.memoryV1.dir != "" {
		candidates, read = g.memoryV1.upwards(), memoryV1
	}
	for i, dir := range candidates {
		l, u := read(t, dir)
		if i == 0 {
			usage = u
		}
		// Of equals the upper one: it is shared with more processes, and in v1
		// every group below it repeats its limit.
		if l > 0 && (limit == 0 || l <= limit) {
			limit, usage = l, u
		}
	}
	return limit, usage
}

func memoryV2(t tree, dir string) (limit, usage int64) {
	limit, _ = t.number(path.Join(dir, "memory.max")) // "max" is no number: none
	return limit, workingSet(t, dir, "memory.current", "inactive_file")
}

// memoryV1 counts limits of groups that the mount does not show, too: the
// kernel tells their minimum as hierarchical_memory_limit.
func memoryV1(t tree, dir string) (limit, usage int64) {
	usage = workingSet(t, dir, "memory.usage_in_bytes", "total_inactive_file")
	limit, _ = t.number(path.Join(dir, "memory.limit_in_bytes"))
	if value, ok := t.field(path.Join(dir, "memory.stat"), "hierarchical_memory_limit"); ok {
		if h, err := strconv.ParseInt(value, 10, 64); err == nil && (limit == 0 || h < limit) {
			limit = h
		}
	}
	if limit >= unlimited {
		limit = 0
	}
	return limit, usage
}

// workingSet is a group's usage without the page cache that the kernel drops
// first: a dump fills whatever cache there is, and that is no shortage.
func workingSet(t tree, dir, usageFile, cacheKey string) int64 {
	usage, _ := t.number(path.Join(dir, usageFile))
	value, _ := t.field(path.Join(dir, "memory.stat"), cacheKey)
	cache, err := strconv.ParseInt(value, 10, 64)
	if err != nil {
		return usage
	}
	return max(usage-cache, 0)
}
