package throwaway

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"strconv"
	"syscall"

	"dbbackup/internal/fault"
)

// serverUser is who runs the server where this process is root, as PostgreSQL
// refuses to.
const serverUser = "postgres"

// owner is the user that the server runs as.
type owner struct {
	credential *syscall.Credential // nil: this process's own
}

// ownerFor chooses the server's user for a process of that effective user.
func ownerFor(euid int, name string) (owner, error) {
	if euid != 0 {
		return owner{}, nil
	}
	const hint = "create that user, or run as a user other than root"
	u, err := user.Lookup(name)
	if err != nil {
		return owner{}, fault.New(fault.Precondition, hint,
			"throwaway server: PostgreSQL does not run as root, and there is no user %s: %w", name, err)
	}
	uid, uidErr := strconv.ParseUint(u.Uid, 10, 32)
	gid, gidErr := strconv.ParseUint(u.Gid, 10, 32)
	if err := errors.Join(uidErr, gidErr); err != nil {
		return owner{}, fmt.Errorf("read the ids of user %s: %w", name, err)
	}
	if uid == 0 {
		return owner{}, fault.New(fault.Precondition, hint,
			"throwaway server: PostgreSQL does not run as root, and user %s is root", name)
	}
	return owner{&syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}, nil
}

// chown gives a folder or file to the server's user.
func (o owner) chown(path string) error {
	if o.credential == nil {
		return nil
	}
	return os.Chown(path, int(o.credential.Uid), int(o.credential.Gid))
}

// owns reports whether the file is the server's user's or this process's.
func (o owner) owns(info fs.FileInfo) bool {
	stat, ok := info.Sys().(*syscall.Stat_t)
	return ok && (int(stat.Uid) == os.Geteuid() || o.credential != nil && stat.Uid == o.credential.Uid)
}

// explain names the likely reason of a start that was not permitted.
func (o owner) explain(err error) error {
	if o.credential == nil || !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return fault.New(fault.Precondition,
		fmt.Sprintf("choose a folder that user %s may reach through every folder above it, or run as that user", serverUser),
		"as user %s, who must be able to enter it: %w", serverUser, err)
}
