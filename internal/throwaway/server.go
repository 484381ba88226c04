package throwaway

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"dbbackup/internal/child"
	"dbbackup/internal/fault"
	"dbbackup/internal/pg"
	"dbbackup/internal/pgtool"
)

const (
	// port only names the socket: nothing listens on a network.
	port = "5432"
	// socketPathBytes is the longest path of a socket (unix(7): 108, with a
	// zero byte).
	socketPathBytes = 107
)

// Server is a running server. It is not safe for concurrent use.
type Server struct {
	BinDir     string // the programs of the server's own version
	VersionNum int    // server_version_num, e.g. 150018
	LogFile    string // the server's log, in its folder

	superuser string
	env       []string
	owner     owner
	programs  pgtool.ServerPrograms
	folder    *folder // holds everything but, where its path is too long, the socket
	sockets   *folder // nil: the socket is in folder

	log     *os.File
	process *child.Process // nil: none was started
	stop    context.CancelCauseFunc
	closed  bool
}

// Start makes a server and returns when it accepts connections. ctx bounds the
// start only; the server runs until Close, which the caller must call. When
// there are no programs of the version, or this process is root and there is
// no user to run the server as, the error is a fault.Precondition and nothing
// was made.
func Start(ctx context.Context, o Options) (*Server, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	programs, err := o.programs(ctx)
	if err != nil {
		return nil, err
	}
	owner, err := ownerFor(os.Geteuid(), serverUser)
	if err != nil {
		return nil, err
	}
	s := &Server{
		BinDir: programs.Dir, VersionNum: programs.Version.Num(), programs: programs,
		superuser: o.superuser(), env: o.environ(), owner: owner,
	}
	if err := s.start(ctx, o); err != nil {
		return nil, errors.Join(err, s.discard(ctx))
	}
	return s, nil
}

// programs finds the programs of the version.
func (o Options) programs(ctx context.Context) (pgtool.ServerPrograms, error) {
	if o.BinDir == "" {
		return o.Search.Server(ctx, o.Major)
	}
	programs, err := o.Search.ServerIn(ctx, o.BinDir)
	if err == nil && programs.Version.Major != o.Major {
		err = fault.New(fault.Precondition, "name the directory with the programs of that version",
			"use %s: it is postgres %s, and a server of PostgreSQL %d is needed", programs.Postgres, programs.Version, o.Major)
	}
	return programs, err
}

func (s *Server) start(ctx context.Context, o Options) error {
	if err := s.makeFolders(o); err != nil {
		return err
	}
	if err := s.initialise(ctx, o); err != nil {
		return fmt.Errorf("make throwaway server in %s: %w", s.folder.path, s.owner.explain(err))
	}
	if err := s.run(ctx); err != nil {
		return fmt.Errorf("start throwaway server in %s: %w", s.folder.path, err)
	}
	return nil
}

// makeFolders makes the server's folder, and one for its socket where the path
// is too long for one, or has what a list of folders gives a meaning.
func (s *Server) makeFolders(o Options) error {
	parent, err := o.parent()
	if err != nil {
		return err
	}
	if s.folder, err = makeFolder(parent, s.owner); err != nil {
		return err
	}
	for _, parent := range []string{os.TempDir(), "/tmp"} {
		if fitsSocket(s.socketDir()) {
			break
		}
		if s.sockets != nil {
			if err := s.sockets.remove(); err != nil {
				return err
			}
		}
		if s.sockets, err = makeFolder(parent, s.owner); err != nil {
			return err
		}
	}
	s.LogFile = filepath.Join(s.folder.path, "log")
	return s.makeOwned(s.madeDir())
}

// fitsSocket reports whether the path of the folder works for a socket.
func fitsSocket(dir string) bool {
	return plainPath.MatchString(dir) && len(filepath.Join(dir, ".s.PGSQL."+port)) <= socketPathBytes
}

var plainPath = regexp.MustCompile(`^[A-Za-z0-9_./+~-]+$`)

func (s *Server) socketDir() string {
	if s.sockets != nil {
		return s.sockets.path
	}
	return s.folder.path
}

func (s *Server) dataDir() string { return filepath.Join(s.folder.path, "data") }

// madeDir holds what MakeDir makes.
func (s *Server) madeDir() string { return filepath.Join(s.folder.path, "dirs") }

func (s *Server) makeOwned(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	return s.owner.chown(dir)
}

// Params lead to the server as its superuser. They say what PG* variables of
// this process would decide otherwise; Env is the environment that goes with
// them.
func (s *Server) Params() pg.Params {
	return pg.Params{
		"host": s.socketDir(), "port": port, "user": s.superuser,
		"sslmode": "disable", "channel_binding": "prefer", "target_session_attrs": "any",
	}
}

// Env is Options.Env without the variables (PG* and others) that would lead
// children to another server or have them fail. It is the Env for pg.Options.
func (s *Server) Env() []string { return append([]string(nil), s.env...) }

// MakeDir makes a folder that the server may write to, for a tablespace, and
// returns its path. The name is that of a file: without slashes. It is removed
// with the server.
func (s *Server) MakeDir(name string) (string, error) {
	if name == "." || !filepath.IsLocal(name) || filepath.Base(name) != name {
		return "", fmt.Errorf("make a folder of the throwaway server: %q is not the name of a file", name)
	}
	dir := filepath.Join(s.madeDir(), name)
	return dir, s.makeOwned(dir)
}

// closeTime bounds how long Close waits for backends that outlive a crashed
// postmaster.
const closeTime = 10 * time.Second

// Close stops the server at once and removes every file, also when ctx has
// ended: it is bounded by times of its own, some seconds in all. An error says
// that the server had ended by itself before, and why, or that files are left:
// what a process that outlives a crashed server still uses is kept for a later
// Start to remove. Closing twice is no error.
func (s *Server) Close(ctx context.Context) error {
	if s.closed {
		return nil
	}
	s.closed = true
	return errors.Join(s.end(), s.removeFiles(ctx))
}

// discard is Close after a start that failed, and for a reason already known.
func (s *Server) discard(ctx context.Context) error {
	s.closed = true
	_ = s.end() // start has said how it ended
	return s.removeFiles(ctx)
}

func (s *Server) removeFiles(ctx context.Context) error {
	if s.folder == nil {
		return nil
	}
	ctx, cancel := context.WithTimeoutCause(context.WithoutCancel(ctx), closeTime, fmt.Errorf("still there after %s", closeTime))
	defer cancel()
	var err error
	if s.sockets != nil {
		err = s.sockets.remove()
	}
	if held := s.folder.takeBack(ctx); held != nil {
		return errors.Join(err, fmt.Errorf("remove throwaway server: a process of it still runs: %w", held))
	}
	return errors.Join(err, s.folder.remove())
}
