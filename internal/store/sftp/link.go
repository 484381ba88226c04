package sftp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"sync"
	"sync/atomic"
	"time"

	wire "github.com/pkg/sftp"
	"golang.org/x/crypto/ssh"

	"dbbackup/internal/fault"
)

// blockBytes is what one request reads or writes: every server takes 32 KiB.
const blockBytes = 32 << 10

// link is one connection with one SFTP session on it. It is never mended: a
// link that was lost is dead, and another takes its place.
type link struct {
	*wire.Client
	conn   *audibleConn
	secure *ssh.Client
	dead   chan struct{} // closed when the session or its connection ended

	streams int // objects being written or read through it; guarded by links.mu

	mu     sync.Mutex
	closed bool
	tasks  sync.WaitGroup
}

// audibleConn remembers when the other side was last heard.
type audibleConn struct {
	net.Conn
	heard atomic.Int64 // UnixNano of the last byte read
}

func (c *audibleConn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 {
		c.heard.Store(time.Now().UnixNano())
	}
	return n, err
}

func (c *audibleConn) quiet() time.Duration {
	return time.Since(time.Unix(0, c.heard.Load()))
}

// dial connects, logs in and starts a session. The agent and the files with
// keys are asked again each time: they may have changed in a long run.
func dial(ctx context.Context, loc location, o *Options) (*link, error) {
	keys, err := knownHosts(loc, o.KnownHosts)
	if err != nil {
		return nil, err
	}
	proof, err := o.credentials()
	if err != nil {
		return nil, err
	}
	defer proof.close()

	dialer := net.Dialer{Timeout: loc.silence}
	conn, err := dialer.DialContext(ctx, "tcp", loc.address())
	if err != nil {
		return nil, unreachable(ctx, loc, err)
	}
	l := &link{conn: &audibleConn{Conn: conn}, dead: make(chan struct{})}
	l.conn.heard.Store(time.Now().UnixNano())
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() }) // what waits for it returns
	if err = conn.SetDeadline(time.Now().Add(loc.silence)); err == nil {
		err = l.handshake(ctx, loc, keys, proof)
	}
	if err == nil { // a handshake that failed has closed the connection
		err = conn.SetDeadline(time.Time{})
	}
	if !stop() && err == nil {
		err = context.Cause(ctx)
	}
	if err != nil {
		_ = conn.Close() // nothing was sent that counts
		return nil, err
	}
	l.start(loc.silence)
	return l, nil
}

func unreachable(ctx context.Context, loc location, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("connect to %s: %w", loc.address(), ctx.Err())
	}
	return fault.New(fault.Unavailable, "check that the host is up and that its SSH port can be reached from here", "connect to %s: %w", loc.address(), err)
}

// handshake logs in and starts the session. What a failure means is told by how
// far it came: the library gives no types for it.
func (l *link) handshake(ctx context.Context, loc location, keys *hostKeys, proof *credentials) error {
	var refused error // by the check of the host key
	trusted := false
	config := &ssh.ClientConfig{
		User:              loc.user,
		Auth:              proof.methods(),
		HostKeyAlgorithms: keys.algos,
		HostKeyCallback: func(address string, remote net.Addr, key ssh.PublicKey) error {
			refused = keys.check(address, remote, key)
			trusted = refused == nil
			return refused
		},
	}
	conn, chans, requests, err := ssh.NewClientConn(l.conn, loc.address(), config)
	var mismatch *ssh.AlgorithmNegotiationError
	switch {
	case err == nil:
	case refused != nil:
		return refused
	case errors.As(err, &mismatch):
		return fault.New(fault.Precondition, "the host keys in known_hosts may be of kinds that the server has no more; run ssh-keyscan to see them",
			"connect to %s: %w", loc.address(), err)
	case brokenOff(err) || !trusted:
		return unreachable(ctx, loc, err)
	default:
		return fault.New(fault.Precondition,
			"check the user's name and its authorized_keys on the server; keys come from DBBACKUP_SFTP_IDENTITY, ssh-agent and ~/.ssh, a password from DBBACKUP_SFTP_PASSWORD or DBBACKUP_SFTP_PASSWORD_FILE",
			"log in to %s as %s with %s: %w", loc.address(), loc.user, proof, err)
	}
	l.secure = ssh.NewClient(conn, chans, requests)
	l.Client, err = wire.NewClient(l.secure, wire.MaxPacketChecked(blockBytes))
	if err != nil {
		if brokenOff(err) {
			return unreachable(ctx, loc, err)
		}
		return fault.New(fault.Precondition, "allow SFTP for this user on the server (Subsystem sftp in sshd_config)",
			"start SFTP on %s as %s: %w", loc.address(), loc.user, err)
	}
	return nil
}

// brokenOff reports whether the network is why.
func brokenOff(err error) bool {
	var network net.Error
	return errors.As(err, &network) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, net.ErrClosed)
}

// start watches the link until it ends.
func (l *link) start(silence time.Duration) {
	l.tasks.Go(func() {
		_ = l.Wait()        // however it ended, it is over
		_ = l.conn.Close()  // a session may end before its connection
		_ = l.secure.Wait() // returns once the connection is closed
		close(l.dead)
	})
	l.tasks.Go(func() { l.listen(silence) })
}

// listen asks a quiet server for a sign of life and hangs up on a silent one. A
// server that answers writes or sends data is not quiet, however slow.
func (l *link) listen(silence time.Duration) {
	ticks := time.NewTicker(silence / 4)
	defer ticks.Stop()
	asking := make(chan struct{}, 1) // one question at a time: it may wait behind data that nobody takes
	for {
		select {
		case <-l.dead:
			return
		case <-ticks.C:
		}
		quiet := l.conn.quiet()
		if quiet > silence {
			_ = l.conn.Close() // all that waits for an answer gets this
			continue
		}
		if quiet > silence/4 {
			l.keepAlive(asking)
		}
	}
}

func (l *link) keepAlive(asking chan struct{}) {
	select {
	case asking <- struct{}{}:
	default:
		return
	}
	l.tasks.Go(func() {
		_, _, _ = l.secure.SendRequest("keepalive@openssh.com", true, nil) // any answer was heard by the conn
		<-asking
	})
}

func (l *link) isDead() bool {
	select {
	case <-l.dead:
		return true
	default:
		return false
	}
}

// run does something in the background that ends at the latest when the link
// does. It reports false, and does nothing, when the link is closed already.
func (l *link) run(task func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false
	}
	l.tasks.Go(task)
	return true
}

// hangUp ends a link on which something was lost, whoever else uses it: they
// would lose the same.
func (l *link) hangUp() {
	_ = l.conn.Close()
	<-l.dead
}

// close hangs up, and waits for all that the link runs.
func (l *link) close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	_ = l.conn.Close() // what it was needed for has been answered or has failed
	l.tasks.Wait()
}

var errLost = errors.New("the connection to the server was lost")

// patience is how long a request is waited for after its context ended. It is
// then given up; the link hears of it when the answer comes.
const patience = 3 * time.Second

// await asks a question on a link. A link that was lost is errLost.
func await[T any](ctx context.Context, l *link, ask func() (T, error)) (T, error) {
	type answer struct {
		value T
		err   error
	}
	var none T
	got := make(chan answer, 1)
	if !l.run(func() {
		value, err := ask()
		got <- answer{value, err}
	}) {
		return none, errLost
	}
	var a answer
	select {
	case a = <-got:
	case <-ctx.Done():
		select {
		case a = <-got:
		case <-time.After(patience):
			return none, ctx.Err()
		}
	}
	if a.err != nil && !answered(a.err) {
		return a.value, fmt.Errorf("%w: %w", errLost, a.err)
	}
	return a.value, a.err
}

// answered reports whether an error is what the server said, and not that
// nothing more came from it.
func answered(err error) bool {
	var status *wire.StatusError
	if errors.As(err, &status) {
		return true
	}
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, fs.ErrPermission) || errors.Is(err, errNotOurs)
}
