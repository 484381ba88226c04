package pg

import (
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
)

// turn is a connection for as long as one reader has it. pgx starts a reader in
// the background when a statement takes more than 15 ms to be sent, and after the
// answer that one may still wait for more. When the connection is read in
// pieces then, it would take some of them, and nobody would ever see what it took.
type turn struct {
	net.Conn

	mu   sync.Mutex // held while reading
	over bool
}

// past is a deadline that makes reads and writes fail at once.
var past = time.Unix(1, 0)

// Read implements net.Conn.
func (t *turn) Read(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.over {
		return 0, net.ErrClosed
	}
	return t.Conn.Read(p)
}

// end makes sure that nobody reads by this turn any more, and returns the
// connection for the next one.
func (t *turn) end() (net.Conn, error) {
	if err := t.SetReadDeadline(past); err != nil {
		return nil, err
	}
	t.mu.Lock()
	t.over = true
	t.mu.Unlock()
	return t.Conn, t.SetReadDeadline(time.Time{})
}

// withTurns takes a new connection over from pgx, which gets it back turn by
// turn. (It cannot be given turns from the beginning: it wants to see TLS's own type
// of connection for channel binding.)
func withTurns(c *pgconn.PgConn) (*pgconn.PgConn, error) {
	hijacked, err := c.Hijack()
	if err != nil {
		return nil, err
	}
	if err := settle(hijacked.Conn); err != nil {
		return nil, errors.Join(err, hijacked.Conn.Close())
	}
	hijacked.Conn = &turn{Conn: hijacked.Conn}
	return pgconn.Construct(hijacked)
}

// settle ends a read that is under way. Reads of one connection wait for
// each other, so the one here returns after it.
func settle(conn net.Conn) error {
	if err := conn.SetReadDeadline(past); err != nil {
		return err
	}
	var nothing [1]byte
	n, err := conn.Read(nothing[:])
	if n > 0 {
		return fmt.Errorf("the server spoke unasked: %w", net.ErrClosed)
	}
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		return unexpected(err)
	}
	return conn.SetReadDeadline(time.Time{})
}
