package buildhook

import (
	"vm-prebuild/buildhook/admission"
)

// Status is what the hooks of a machine do.
type Status struct {
	Dir    string           `json:"dir"`
	Budget admission.Budget `json:"budget"` // with which this one would judge
	Used   admission.Demand `json:"used"`   // by the tests that run

	Running []admission.Ticket `json:"running"`
	Waiting []admission.Ticket `json:"waiting"`
}

// ReadStatus reads what the hooks with the directory dir do.
func ReadStatus(dir string, b Budget) (Status, error) {
	l, err := limitOf(b, "/")
	if err != nil {
		return Status{}, err
	}
	s := Status{Dir: dir, Budget: l.budget, Running: []admission.Ticket{}, Waiting: []admission.Ticket{}}
	tickets, err := admission.List(queueDir(dir))
	if err != nil {
		return s, err
	}
	for _, t := range tickets {
		if t.State == admission.Waiting {
			s.Waiting = append(s.Waiting, t)
			continue
		}
		s.Running = append(s.Running, t)
		s.Used.Machines += t.Demand.Machines
		s.Used.MemoryMiB += t.Demand.MemoryMiB
		s.Used.Cores += t.Demand.Cores
	}
	return s, nil
}
