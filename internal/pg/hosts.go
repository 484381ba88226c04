package pg

import (
	"cmp"
	"context"
	"errors"
	"strconv"
	"strings"
)

// hosts returns the parameters for each server that the options, the
// environment or the service file name, in the order to try.
func (e *Endpoint) hosts() ([]Params, error) {
	addresses := cmp.Or(e.params["hostaddr"], lookup(e.env, "PGHOSTADDR"))
	if addresses != "" && e.params["host"] == "" && lookup(e.env, "PGHOST") == "" {
		e.params["host"] = addresses // as libpq does
	}
	cfg, err := e.config("")
	if err != nil {
		return nil, err
	}
	type place struct {
		host string
		port uint16
	}
	places := []place{{cfg.Host, cfg.Port}}
	for _, f := range cfg.Fallbacks { // with and without TLS, side by side
		if next := (place{f.Host, f.Port}); next != places[len(places)-1] {
			places = append(places, next)
		}
	}
	var hosts []Params
	for i, p := range places {
		one := e.params.With(Params{"host": p.host, "port": strconv.Itoa(int(p.port))})
		if list := strings.Split(addresses, ","); i < len(list) && list[i] != "" {
			one["hostaddr"] = list[i]
		} else {
			delete(one, "hostaddr")
		}
		hosts = append(hosts, one)
	}
	return preferred(hosts), nil
}

// preferred spells out what prefer-standby means for single hosts: first each
// as a standby, then each as it is.
func preferred(hosts []Params) []Params {
	if hosts[0]["target_session_attrs"] != "prefer-standby" {
		return hosts
	}
	var ordered []Params
	for _, attrs := range []string{"standby", "any"} {
		for _, h := range hosts {
			ordered = append(ordered, h.With(Params{"target_session_attrs": attrs}))
		}
	}
	return ordered
}

// connectFirst connects to the first host that answers, and fixes the endpoint
// to it. As with libpq, a host that answers and refuses the role or the
// database ends the search.
func (e *Endpoint) connectFirst(ctx context.Context, hosts []Params, database string) (*Conn, error) {
	var errs []error
	for _, h := range hosts {
		e.params = h.With(nil)
		conn, err := e.ConnectOnce(ctx, database)
		if err == nil || ctx.Err() != nil || hasState(err, stateInvalidPassword, stateInvalidAuth, stateNoSuchDatabase) {
			return conn, err
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}
