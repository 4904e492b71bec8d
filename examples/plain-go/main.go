// A worker without an SDK: it counts, and its count moves with it. docs/worker.md says what is asked of it.
package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strconv"
	"sync"
	"syscall"
	"time"
)

const vsn = "1"

type part struct {
	Name  string `json:"name"`
	Bytes int    `json:"bytes"`
}

type call struct { // what any command may say
	Epoch, Seq       uint64
	Vsn, Purpose     string
	Initial, DryRun  bool
	Since, UnlessSeq *uint64
	Parts            []part
}

var (
	lock     sync.Mutex // every request runs under it: a suspend has waited for those before it
	state    = "Standby"
	epoch    uint64                   // the highest seen
	used     string                   // the command that used it
	seq      uint64                   // number of the last change
	value    uint64                   // the state
	applied  string                   // the apply that is in effect
	uploads  = map[string][]byte{}    // import/part: what came in
	captures = map[string][2]string{} // one for each purpose: its name and its bytes
	instance = fmt.Sprintf("%x-%x", time.Now().UnixNano(), os.Getpid())
)

type object map[string]any

type refusal struct {
	status        int
	code, message string
	have          int
}

func no(status int, code, message string) *refusal { return &refusal{status, code, message, 0} }
func wrongState() *refusal                         { return no(409, "WrongState", "the worker is "+state) }

// command changes the state or refuses. What it gives back is the answer; nothing is 204.
func command(name, id string, body []byte) (any, *refusal) {
	var c call
	if json.Unmarshal(body, &c) != nil {
		return nil, no(400, "BadRequest", "the body is not the contract's")
	}
	owns := name == "suspend" || name == "resume" || name == "activate" // commands with an epoch of their own
	if c.Epoch < epoch || owns && c.Epoch == epoch && used != "" && used != name {
		return nil, no(409, "StaleEpoch", "send the command at a new epoch")
	}
	if c.Epoch > epoch {
		epoch, used = c.Epoch, ""
	}
	switch name {
	case "suspend", "resume":
		if state == "Standby" {
			return nil, wrongState()
		}
		state, used = map[string]string{"suspend": "Suspended", "resume": "Active"}[name], name
	case "activate":
		if state == "Suspended" {
			return nil, wrongState()
		}
		if state == "Standby" && c.Initial == (applied != "") {
			return nil, no(409, "InitialMismatch", "`initial` does not fit whether a state was applied")
		}
		state, used = "Active", name
	case "capture":
		if state == "Standby" {
			return nil, wrongState()
		}
		if c.UnlessSeq == nil || *c.UnlessSeq != seq {
			held := [2]string{fmt.Sprintf("%s-%d", c.Purpose, seq), strconv.FormatUint(value, 10)}
			captures[c.Purpose] = held
			return object{"capture": held[0], "seq": seq, "vsn": vsn, "parts": []part{{"state", len(held[1])}}}, nil
		}
	case "apply":
		bytes := uploads[id+"/state"]
		number, err := strconv.ParseUint(string(bytes), 10, 53)
		if applied == id+string(body) { // the same again: it is in effect
		} else if state != "Standby" {
			return nil, wrongState()
		} else if c.Since != nil {
			return nil, no(409, "WrongBase", "this worker takes whole states only")
		} else if len(c.Parts) != 1 || c.Parts[0] != (part{"state", len(bytes)}) {
			return nil, no(409, "Incomplete", "upload the part `state`, whole")
		} else if c.Vsn != vsn || err != nil {
			return nil, no(422, "CannotAccept", "`state` is not a number of version "+vsn)
		} else if !c.DryRun {
			value, seq, applied = number, c.Seq, id+string(body)
		}
	default:
		return nil, no(404, "NotFound", "no such call")
	}
	return nil, nil
}

func put(key string, offset int, slice []byte) (any, *refusal) {
	have := len(uploads[key])
	if state != "Standby" {
		return nil, wrongState()
	} else if offset == 0 {
		uploads = map[string][]byte{key: slice} // one part, one import at a time: enough for this state
	} else if offset == have {
		uploads[key] = append(uploads[key], slice...)
	} else if offset > have || string(uploads[key][offset:]) != string(slice) { // not the last slice again
		return nil, &refusal{409, "WrongOffset", "continue at `have`", have}
	}
	return nil, nil
}

func held(id string) string {
	for _, capture := range captures {
		if capture[0] == id {
			return capture[1]
		}
	}
	return ""
}

func control(_ http.ResponseWriter, r *http.Request, body []byte) (any, *refusal) {
	id, offset := r.PathValue("id"), 0
	switch r.Pattern {
	case "GET /v1/info":
		return object{"contract": 1, "instance": instance, "vsn": vsn, "state": state, "epoch": epoch, "seq": seq,
			"capture": "Live"}, nil
	case "POST /v1/{call}":
		return command(r.PathValue("call"), "", body)
	case "POST /v1/import/{id}/apply":
		return command("apply", id, body)
	case "PUT /v1/import/{id}/{part}":
		if _, err := fmt.Sscanf(r.URL.RawQuery, "offset=%d", &offset); err != nil || offset < 0 {
			return nil, no(400, "BadRequest", "the slice has no `offset`")
		}
		return put(id+"/"+r.PathValue("part"), offset, body)
	case "DELETE /v1/import/{id}":
		uploads = map[string][]byte{}
		return nil, nil
	}
	if held(id) == "" {
		return nil, no(404, "NotFound", "no such call or capture")
	} else if r.Method == "GET" {
		return []byte(held(id)), nil
	}
	return object{"parts": []part{{"state", len(held(id))}}}, nil
}

func clients(w http.ResponseWriter, r *http.Request, _ []byte) (any, *refusal) {
	if state != "Active" && r.URL.Path != "/healthz" {
		w.Header().Set("ProcessHub-State", state)
		return nil, no(503, "Busy", "not executed")
	}
	if r.Method == "POST" && r.URL.Path == "/add" {
		value, seq = value+1, seq+1
	}
	w.Header().Set("ProcessHub-Seq", strconv.FormatUint(seq, 10))
	return []byte(fmt.Sprintln(value)), nil
}

func serve(variable, address string, handle func(http.ResponseWriter, *http.Request, []byte) (any, *refusal), patterns ...string) {
	if set := os.Getenv(variable); set != "" {
		address = set
	}
	mux := http.NewServeMux()
	for _, pattern := range patterns {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			body, err := io.ReadAll(io.LimitReader(r.Body, 8<<20))
			if err != nil {
				return // the caller hung up: nothing was done yet
			}
			lock.Lock()
			defer lock.Unlock()
			switch answer, refused := handle(w, r, body); bytes := answer.(type) {
			case []byte:
				w.Write(bytes)
			case object:
				json.NewEncoder(w).Encode(bytes)
			default:
				if refused == nil {
					w.WriteHeader(204)
					return
				}
				w.WriteHeader(refused.status)
				json.NewEncoder(w).Encode(object{"code": refused.code, "message": refused.message, "state": state,
					"epoch": epoch, "have": refused.have})
			}
		})
	}
	panic(http.ListenAndServe(address, mux))
}

func main() {
	go serve("PROCESSHUB_CONTROL", "127.0.0.1:9700", control, "GET /v1/info", "POST /v1/{call}",
		"GET /v1/capture/{id}/state", "DELETE /v1/capture/{id}", "PUT /v1/import/{id}/{part}",
		"POST /v1/import/{id}/apply", "DELETE /v1/import/{id}", "/")
	go serve("PROCESSHUB_LISTEN", "127.0.0.1:8080", clients, "/")
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	<-stop
}
