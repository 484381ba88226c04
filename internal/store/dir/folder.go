package dir

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"dbbackup/internal/store/folders"
)

// errNotOurs is why a symbolic link, a device or anything else that is neither
// file nor folder is not followed.
var errNotOurs = errors.New("is neither a regular file nor a folder")

// makeFolders makes the folders of a key's parent. A symbolic link among them
// is refused. The caller holds d.folders.
func (d *Dir) makeFolders(folder string) error {
	for _, name := range folders.Ancestry(folder) {
		err := d.root.Mkdir(name, folderMode)
		switch {
		case err == nil:
			delete(d.durable, name)
			d.made++
			err = d.ownFolder(name)
		case errors.Is(err, fs.ErrExist):
			err = d.checkFolder(name)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// checkFolders refuses a path whose folders are not plain folders.
func (d *Dir) checkFolders(folder string) error {
	for _, name := range folders.Ancestry(folder) {
		if err := d.checkFolder(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) checkFolder(name string) error {
	info, err := d.root.Lstat(name)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("%s is not a folder: %w", name, unix.ENOTDIR)
	}
	return nil
}

// syncUp syncs a folder, so that an entry made in it is found again after a power
// failure, and all above it up to the root whose own names may be as new.
func (d *Dir) syncUp(folder string) error {
	d.folders.Lock()
	made := d.made
	d.folders.Unlock()
	if err := d.syncFolder(folder); err != nil {
		return err
	}
	var synced []string
	for ; folder != "." && !d.isDurable(folder); folder = path.Dir(folder) {
		if err := d.syncFolder(path.Dir(folder)); err != nil {
			return err
		}
		synced = append(synced, folder)
	}
	d.folders.Lock()
	defer d.folders.Unlock()
	if d.made != made {
		return nil // one of them may be another than the one that was synced
	}
	for _, name := range synced { // not before all are: others go by the lowest
		d.durable[name] = true
	}
	return nil
}

func (d *Dir) isDurable(folder string) bool {
	d.folders.Lock()
	defer d.folders.Unlock()
	return d.durable[folder]
}

func (d *Dir) syncFolder(folder string) error {
	handle, err := d.root.Open(folder)
	if err != nil {
		return err
	}
	return errors.Join(handle.Sync(), handle.Close())
}

// pruneUp removes a folder and those above it as long as they are empty. That
// one is not empty, or was removed by another, is the normal end. What is no
// folder is left alone.
func (d *Dir) pruneUp(folder string) error {
	d.folders.Lock()
	defer d.folders.Unlock()
	for ; folder != "."; folder = path.Dir(folder) {
		err := d.removeFolder(folder)
		if errors.Is(err, unix.ENOTEMPTY) || errors.Is(err, unix.EEXIST) || errors.Is(err, unix.ENOTDIR) {
			return nil
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

// removeFolder removes an empty folder and nothing else. os.Root.Remove would
// remove a file, too.
func (d *Dir) removeFolder(folder string) error {
	parent, err := d.root.Open(path.Dir(folder))
	if err != nil {
		return err
	}
	defer parent.Close()
	return unix.Unlinkat(int(parent.Fd()), path.Base(folder), unix.AT_REMOVEDIR)
}

// renameNew renames an entry and never replaces anything at the new name.
func (d *Dir) renameNew(from, to string) error {
	source, err := d.root.Open(path.Dir(from))
	if err != nil {
		return err
	}
	defer source.Close()
	target, err := d.root.Open(path.Dir(to))
	if err != nil {
		return err
	}
	defer target.Close()
	err = unix.Renameat2(int(source.Fd()), path.Base(from), int(target.Fd()), path.Base(to), unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) {
		return d.renameOldKernel(from, to)
	}
	return err
}

// renameOldKernel is renameNew for file systems without RENAME_NOREPLACE (NFS
// and some FUSE ones). A file is linked, which never replaces. A folder can
// only be renamed, which at worst replaces an empty folder.
func (d *Dir) renameOldKernel(from, to string) error {
	info, err := d.root.Lstat(from)
	if err != nil {
		return err
	}
	if !info.IsDir() {
		if err := d.root.Link(from, to); err != nil {
			return err
		}
		return d.root.Remove(from)
	}
	if _, err := d.root.Lstat(to); !errors.Is(err, fs.ErrNotExist) {
		return errors.Join(err, fs.ErrExist)
	}
	return d.root.Rename(from, to)
}

// openPlain opens a regular file for reading, and nothing else: a FIFO would
// block, a symbolic link would lead elsewhere.
func (d *Dir) openPlain(name string) (*os.File, error) {
	if err := d.checkFolders(path.Dir(name)); err != nil {
		return nil, err
	}
	before, err := d.root.Lstat(name)
	if err != nil {
		return nil, err
	}
	if !before.Mode().IsRegular() {
		return nil, fmt.Errorf("%s %w", name, errNotOurs)
	}
	file, err := d.root.OpenFile(name, os.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, err
	}
	after, err := file.Stat()
	if err == nil && !os.SameFile(before, after) {
		err = fmt.Errorf("%s was replaced while it was opened", name)
	}
	if err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

const stagedPrefix = ".staged-"

// ownName reports whether a file name is one that this package gives to what
// is not yet published.
func ownName(name string) bool {
	if strings.HasPrefix(name, stagedPrefix) {
		return folders.IsRandom(name[len(stagedPrefix):])
	}
	return folders.IsPartial(name)
}
