package sysprobe

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/shirou/gopsutil/v3/disk"
)

// Filesystem is what lies under a path.
type Filesystem struct {
	Path       string `json:"path"` // as it was asked for; it need not exist
	Mountpoint string `json:"mountpoint"`
	Type       string `json:"type"`
	Device     string `json:"device"`
	// Options are the mount's and the file system's own, e.g. rw, noatime,
	// data=ordered; without duplicates.
	Options    []string `json:"options"`
	FreeBytes  int64    `json:"free_bytes"` // what an ordinary user may still write
	TotalBytes int64    `json:"total_bytes"`
	// FreeInodes is Unknown where the file system has no fixed number.
	FreeInodes int64 `json:"free_inodes"`
	Network    bool  `json:"network"`
}

// filesystem describes what name would be written to. Where name does not
// exist yet, that is its nearest folder that does.
func filesystem(ctx context.Context, t tree, mounts []mount, name string) (Filesystem, error) {
	existing, err := nearest(t, name)
	if err != nil {
		return Filesystem{}, fmt.Errorf("look up %s: %w", name, err)
	}
	usage, err := disk.UsageWithContext(ctx, t.path(existing))
	if err != nil {
		return Filesystem{}, fmt.Errorf("read file system of %s: %w", name, err)
	}
	f := Filesystem{
		Path:       name,
		FreeBytes:  int64(usage.Free),
		TotalBytes: int64(usage.Total),
		FreeInodes: int64(usage.InodesFree),
	}
	if usage.InodesTotal == 0 {
		f.FreeInodes = Unknown
	}
	if m, ok := mountOf(mounts, existing); ok {
		f.Mountpoint, f.Type, f.Device = m.mountpoint, m.fstype, m.device
		f.Options = slices.Concat(m.options, m.superOptions)
		slices.Sort(f.Options)
		f.Options = slices.Compact(f.Options)
		f.Network = isNetwork(m.fstype)
	}
	return f, nil
}

// nearest returns name, or the closest folder above it that exists, with all
// symbolic links resolved and relative to the tree's root.
func nearest(t tree, name string) (string, error) {
	absolute, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	root, err := filepath.EvalSymlinks(t.path("/"))
	if err != nil {
		return "", err
	}
	for dir := absolute; ; dir = filepath.Dir(dir) {
		resolved, err := filepath.EvalSymlinks(t.path(dir))
		if errors.Is(err, fs.ErrNotExist) && dir != "/" {
			continue
		}
		if err != nil {
			return "", err
		}
		below, err := filepath.Rel(root, resolved)
		if err != nil || strings.HasPrefix(below, "..") {
			return "", fmt.Errorf("%s leads outside %s", dir, root)
		}
		return path.Join("/", below), nil
	}
}

// isNetwork reports whether a file system's bytes are on another machine.
func isNetwork(fstype string) bool {
	switch fstype {
	case "nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "glusterfs", "lustre",
		"beegfs", "gpfs", "ocfs2", "gfs2", "ncpfs", "davfs", "virtiofs":
		return true
	}
	// A FUSE file system is local or not, and does not say; those named here
	// are not.
	switch strings.TrimPrefix(fstype, "fuse.") {
	case "sshfs", "glusterfs", "ceph", "ceph-fuse", "s3fs", "rclone", "gcsfuse", "goofys", "mount-s3", "davfs", "juicefs", "blobfuse2":
		return true
	}
	return false
}

// mount is a line of /proc/self/mountinfo (see proc_pid_mountinfo(5)).
type mount struct {
	root, mountpoint, fstype, device string
	options, superOptions            []string
}

func readMounts(t tree) ([]mount, error) {
	name := t.path("/proc/self/mountinfo")
	content, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("read mounts: %w", err)
	}
	var mounts []mount
	for line := range strings.Lines(string(content)) {
		m, ok := parseMount(line)
		if !ok {
			return nil, fmt.Errorf("read mounts: line %q of %s is no mount", strings.TrimSpace(line), name)
		}
		mounts = append(mounts, m)
	}
	return mounts, nil
}

// parseMount reads "36 35 98:0 /root /mountpoint options [tags...] - type
// device superoptions". A device may be empty, which leaves one field less.
func parseMount(line string) (mount, bool) {
	left, right, ok := strings.Cut(line, " - ")
	before, after := strings.Fields(left), strings.Fields(right)
	if !ok || len(before) < 6 || len(after) < 2 {
		return mount{}, false
	}
	m := mount{
		root:         unescape(before[3]),
		mountpoint:   unescape(before[4]),
		options:      strings.Split(before[5], ","),
		fstype:       after[0],
		superOptions: strings.Split(after[len(after)-1], ","),
	}
	if len(after) > 2 {
		m.device = unescape(after[1])
	}
	return m, true
}

// mountOf returns the mount that shows a path: the one with the longest mount
// point, and of several over each other the last.
func mountOf(mounts []mount, name string) (mount, bool) {
	var best mount
	found := false
	for _, m := range mounts {
		if _, ok := relative(m.mountpoint, name); ok && len(m.mountpoint) >= len(best.mountpoint) {
			best, found = m, true
		}
	}
	return best, found
}

// relative returns what follows dir in name, if name is dir or below it.
func relative(dir, name string) (string, bool) {
	if dir == "/" {
		return name, strings.HasPrefix(name, "/")
	}
	rest, ok := strings.CutPrefix(name, dir)
	if !ok || (rest != "" && rest[0] != '/') {
		return "", false
	}
	return rest, true
}

// unescape reads the kernel's octal escapes for white space and backslashes.
func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '\\' && i+3 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+4], 8, 8); err == nil {
				b.WriteByte(byte(n))
				i += 3
				continue
			}
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
