package sysprobe

import "strings"

// Settings are the kernel settings that matter to a database host. A number
// that the kernel does not tell is Unknown.
type Settings struct {
	OvercommitMemory     int    `json:"vm_overcommit_memory"`
	OvercommitRatio      int    `json:"vm_overcommit_ratio"`
	Swappiness           int    `json:"vm_swappiness"`
	DirtyRatio           int    `json:"vm_dirty_ratio"`            // 0 where vm.dirty_bytes is in use
	DirtyBackgroundRatio int    `json:"vm_dirty_background_ratio"` // 0 where vm.dirty_background_bytes is in use
	TransparentHugepages string `json:"transparent_hugepages,omitempty"`
}

func settings(t tree) Settings {
	thp, _ := bracketed(t.text("/sys/kernel/mm/transparent_hugepage/enabled"))
	return Settings{
		OvercommitMemory:     t.setting("/proc/sys/vm/overcommit_memory"),
		OvercommitRatio:      t.setting("/proc/sys/vm/overcommit_ratio"),
		Swappiness:           t.setting("/proc/sys/vm/swappiness"),
		DirtyRatio:           t.setting("/proc/sys/vm/dirty_ratio"),
		DirtyBackgroundRatio: t.setting("/proc/sys/vm/dirty_background_ratio"),
		TransparentHugepages: thp,
	}
}

// BlockDevice is a disk, not a partition, with its queue's settings.
type BlockDevice struct {
	Name string `json:"name"` // e.g. sda, nvme0n1
	// Rotational is what the kernel believes. Virtual disks often say so too.
	Rotational          bool     `json:"rotational"`
	Scheduler           string   `json:"scheduler,omitempty"`
	AvailableSchedulers []string `json:"available_schedulers,omitempty"`
	AddRandom           int      `json:"add_random"`
	ReadAheadKB         int      `json:"read_ahead_kb"`
}

// blockDevices lists the disks. Loop, RAM and compressed-RAM devices are none,
// and stacked devices (md, device mapper) pass requests on to disks that are
// listed themselves.
func blockDevices(t tree) []BlockDevice {
	var devices []BlockDevice
	for _, name := range t.names("/sys/block") {
		if !isDisk(name) {
			continue
		}
		queue := "/sys/block/" + name + "/queue/"
		d := BlockDevice{
			Name:        name,
			Rotational:  t.setting(queue+"rotational") == 1,
			AddRandom:   t.setting(queue + "add_random"),
			ReadAheadKB: t.setting(queue + "read_ahead_kb"),
		}
		d.Scheduler, d.AvailableSchedulers = bracketed(t.text(queue + "scheduler"))
		devices = append(devices, d)
	}
	return devices
}

func isDisk(name string) bool {
	for _, prefix := range []string{"loop", "ram", "zram", "md", "dm-", "sr", "fd", "nbd"} {
		if strings.HasPrefix(name, prefix) {
			return false
		}
	}
	return true
}

// virtual reports whether the device's requests are ordered by somebody else:
// a hypervisor, or a controller with many queues of its own.
func (d BlockDevice) virtual() bool {
	for _, prefix := range []string{"nvme", "vd", "xvd"} {
		if strings.HasPrefix(d.Name, prefix) {
			return true
		}
	}
	return false
}
