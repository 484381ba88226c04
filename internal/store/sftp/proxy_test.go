package sftp

import (
	"io"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"dbbackup/internal/store/lease"
	"dbbackup/internal/storeserver"
)

// proxy stands between the store and its server, and cuts or mutes connections.
type proxy struct {
	server string
	l      net.Listener
	up     atomic.Int64 // bytes until all is cut; below 0 never
	down   atomic.Int64
	cuts   atomic.Int64
	mute   atomic.Bool // nothing passes any more

	mu    sync.Mutex
	conns []net.Conn
}

func startProxy(t *testing.T, server *storeserver.SSHD) *proxy {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	p := &proxy{server: server.Addr(), l: l}
	p.up.Store(1 << 60)
	p.down.Store(1 << 60)
	var tasks sync.WaitGroup
	tasks.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			tasks.Go(func() { p.serve(conn) })
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		p.cut()
		tasks.Wait()
	})
	return p
}

func (p *proxy) serve(client net.Conn) {
	defer client.Close()
	server, err := net.Dial("tcp", p.server)
	if err != nil {
		return
	}
	defer server.Close()
	p.mu.Lock()
	p.conns = append(p.conns, client, server)
	p.mu.Unlock()
	var both sync.WaitGroup
	both.Go(func() { p.pass(server, client, &p.up) })
	both.Go(func() { p.pass(client, server, &p.down) })
	both.Wait()
}

func (p *proxy) pass(to io.WriteCloser, from io.Reader, left *atomic.Int64) {
	defer to.Close()
	buffer := make([]byte, 16<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if p.mute.Load() {
			continue
		}
		if now := left.Add(int64(-n)); now < 0 && now+int64(n) >= 0 {
			p.cuts.Add(1)
			p.cut()
			return
		}
		if _, err := to.Write(buffer[:n]); err != nil {
			return
		}
	}
}

// cut ends all connections that there are.
func (p *proxy) cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

// open opens a store through the proxy.
func (p *proxy) open(t *testing.T, server *storeserver.SSHD, folder, query string) *Store {
	t.Helper()
	o := options(server)
	u := server.URL(folder)
	u.Host = p.l.Addr().String()
	u.RawQuery = query
	o.KnownHosts = []string{knownAs(t, server, u.Host)}
	o.lease = lease.Options{}
	place, err := Open(t.Context(), u, o)
	must(t, err)
	t.Cleanup(func() { must(t, place.Close()) })
	return place.(roomy).Store
}
