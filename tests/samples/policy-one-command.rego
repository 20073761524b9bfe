# A pod whose containers run as they were made: one command may be executed in them, for a probe, and the host can
# neither read what they write nor change the policy.
package agent_policy

import rego.v1

# The course of a pod's life.
default CreateSandboxRequest := true
default DestroySandboxRequest := true
default CreateContainerRequest := false
default StartContainerRequest := true
default WaitProcessRequest := true
default SignalProcessRequest := true
default RemoveContainerRequest := true
default GetOOMEventRequest := true
default GuestDetailsRequest := true
default StatsContainerRequest := true
default UpdateInterfaceRequest := true
default UpdateRoutesRequest := true
default AddARPNeighborsRequest := true
default OnlineCPUMemRequest := true

# Refused: an empty stream instead of the output, and no second policy.
default ReadStreamRequest := false
default SetPolicyRequest := false
default ExecProcessRequest := false

probe := ["/bin/cat", "/proc/uptime"]

# What is printed becomes the text of the refusal, so that whoever is refused can see why.
ExecProcessRequest if {
	print("the command is", input.process.Args, "and only", probe, "is allowed")
	input.process.Args == probe
	input.process.User.UID == 0
}

# A container's command is remembered under its id, so that removing it and making it anew with another one is
# refused too. `ops` is a JSON patch of the document that `data` is in the next call.
CreateContainerRequest := {"allowed": true, "ops": ops} if {
	not input.OCI.Process.Terminal
	known := object.get(data.pstate, input.container_id, null)
	known in {null, input.OCI.Process.Args}
	path := concat("/", ["/pstate", input.container_id])
	ops := [{"op": "add", "path": path, "value": input.OCI.Process.Args}]
}
