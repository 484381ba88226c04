package bucket

import (
	"context"
	"net"
	"net/http"
	"time"
)

// dialStall makes connections on which no read and no write waits longer than
// stall: a peer that hangs would otherwise hang the run.
func dialStall(stall time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	dialer := &net.Dialer{Timeout: 30 * time.Second, KeepAlive: 30 * time.Second}
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dialer.DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return &stallConn{Conn: conn, stall: stall}, nil
	}
}

type stallConn struct {
	net.Conn
	stall time.Duration
}

func (c *stallConn) Read(p []byte) (int, error) {
	if err := c.SetReadDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Read(p)
}

// Write also moves the deadline of the read that waits for the answer: the
// service is not silent while it takes what is sent.
func (c *stallConn) Write(p []byte) (int, error) {
	if err := c.SetDeadline(time.Now().Add(c.stall)); err != nil {
		return 0, err
	}
	return c.Conn.Write(p)
}

// tune sets what all kinds have in common.
func tune(t *http.Transport, stall time.Duration) {
	t.DialContext = dialStall(stall)
	t.MaxIdleConnsPerHost = 32
	t.WriteBufferSize, t.ReadBufferSize = 64<<10, 64<<10
	t.DisableCompression = true // what is stored is read as it is
}

func newTransport(stall time.Duration) *http.Transport {
	t := http.DefaultTransport.(*http.Transport).Clone() //nolint:errcheck // it is one (net/http)
	tune(t, stall)
	return t
}
