package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"golang.org/x/sys/unix"
)

// owner is whom the store's directory belongs to. What root makes in it becomes the
// owner's, who could neither read nor delete it otherwise: a set that was verified,
// drilled or copied by root must not stop the next night's run.
type owner struct{ uid, gid int }

func (d *Dir) ownerFor(euid int) (*owner, error) {
	var stat unix.Stat_t
	if err := unix.Stat(d.path, &stat); err != nil {
		return nil, err
	}
	if euid == 0 && stat.Uid != 0 {
		return &owner{int(stat.Uid), int(stat.Gid)}, nil
	}
	return nil, nil //nolint:nilnil // no owner but who runs
}

// own gives a file or folder its mode, whatever the umask said, and its owner. Where
// a file system, or a root without the right to, gives nothing away, it stays root's.
func (d *Dir) own(file *os.File, mode fs.FileMode) error {
	if d.owner == nil {
		return file.Chmod(mode)
	}
	var stat unix.Stat_t
	if err := unix.Fstat(int(file.Fd()), &stat); err != nil {
		return err
	}
	if stat.Mode&unix.S_IFMT == unix.S_IFREG && stat.Nlink != 1 { // it may be a second name of a file that is not the owner's
		return fmt.Errorf("%s has %d names, and should have one", file.Name(), stat.Nlink)
	}
	if err := file.Chmod(mode); err != nil {
		return err
	}
	err := file.Chown(d.owner.uid, d.owner.gid)
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	return err
}

// ownFolder does the same to a folder that was just made.
func (d *Dir) ownFolder(name string) error {
	if d.owner == nil {
		return d.root.Chmod(name, folderMode)
	}
	folder, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_DIRECTORY, 0)
	if err != nil {
		return err
	}
	return errors.Join(d.own(folder, folderMode), folder.Close())
}
